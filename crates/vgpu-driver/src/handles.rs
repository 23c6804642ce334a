//! The handles that programs hold: numbers, looked up in one table, so that a bad one is an error.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::failure::{Failure, Outcome, code};

/// A handle as C sees it: an opaque pointer, never followed.
pub(crate) type Handle = usize;

type Object = Arc<dyn Any + Send + Sync>;

struct Row {
    object: Object,
    /// The context whose end is the object's too.
    context: Option<u64>,
}

#[derive(Default)]
struct Table {
    rows: HashMap<Handle, Row>,
    given: usize,
}

/// All handles of the process.
#[derive(Default)]
pub(crate) struct Handles(RwLock<Table>);

/// First handle and the distance of two: far from small numbers, which are special streams, and
/// from addresses of a process.
const FIRST: usize = 0x7a00_0000_0000_0000;
const STEP: usize = 16;

impl Handles {
    fn locked<R>(&self, f: impl FnOnce(&mut Table) -> R) -> R {
        f(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives `object` a handle. `context`: dies with it. Handles are never given twice.
    pub fn insert<T: Any + Send + Sync>(&self, object: Arc<T>, context: Option<u64>) -> Handle {
        self.locked(|table| {
            table.given += 1;
            let handle = FIRST + STEP * table.given;
            table.rows.insert(handle, Row { object, context });
            handle
        })
    }

    /// Puts another object behind a handle that is given.
    pub fn replace<T: Any + Send + Sync>(&self, handle: Handle, object: Arc<T>) {
        self.locked(|table| {
            if let Some(row) = table.rows.get_mut(&handle) {
                row.object = object;
            }
        });
    }

    /// The object behind a handle, if it is one of type `T`.
    pub fn find<T: Any + Send + Sync>(&self, handle: Handle) -> Option<Arc<T>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.rows.get(&handle)?.object.clone().downcast().ok()
    }

    /// The object behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE` when there is none of type `T`.
    pub fn get<T: Any + Send + Sync>(&self, handle: Handle) -> Outcome<Arc<T>> {
        self.find(handle)
            .ok_or(Failure::quiet(code::INVALID_HANDLE))
    }

    /// Takes a handle back.
    ///
    /// # Errors
    /// `INVALID_HANDLE` when there is none of type `T`.
    pub fn remove<T: Any + Send + Sync>(&self, handle: Handle) -> Outcome<Arc<T>> {
        let object = self.get(handle)?;
        self.locked(|table| table.rows.remove(&handle));
        Ok(object)
    }

    /// Takes back every handle that dies with `context`.
    pub fn remove_of(&self, context: u64) -> Vec<Object> {
        self.locked(|table| {
            let dead: Vec<Handle> = table
                .rows
                .iter()
                .filter(|(_, row)| row.context == Some(context))
                .map(|(&handle, _)| handle)
                .collect();
            dead.iter()
                .filter_map(|handle| table.rows.remove(handle))
                .map(|row| row.object)
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_has_one_type_and_dies_once() {
        let handles = Handles::default();
        let number = handles.insert(Arc::new(7_u32), Some(1));
        let text = handles.insert(Arc::new("seven"), None);
        assert_ne!(number, text);
        assert_eq!(*handles.get::<u32>(number).unwrap(), 7);
        assert_eq!(
            handles.get::<u32>(text).unwrap_err().code,
            code::INVALID_HANDLE
        );
        assert_eq!(
            handles.get::<u32>(0).unwrap_err().code,
            code::INVALID_HANDLE
        );
        assert!(handles.remove::<&str>(text).is_ok());
        assert_eq!(
            handles.remove::<&str>(text).unwrap_err().code,
            code::INVALID_HANDLE
        );
        assert_eq!(handles.remove_of(1).len(), 1);
        assert!(handles.find::<u32>(number).is_none());
    }
}
