//! Work that was recorded once and can be launched again and again.

use std::sync::Arc;

use crate::driver::{Driver, RawGraph};
use crate::{Error, Result, Stream};

/// What [`Stream::capture`] recorded. The buffers that it uses must outlive it.
pub struct Graph {
    driver: Arc<dyn Driver>,
    raw: RawGraph,
}

impl Graph {
    pub(crate) fn new(driver: Arc<dyn Driver>, raw: RawGraph) -> Self {
        Self { driver, raw }
    }

    /// Puts all of its work into a stream.
    ///
    /// # Errors
    /// A stream of another device; what the driver says.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        if !Arc::ptr_eq(&self.driver, stream.driver()) {
            return Err(Error::OtherDevice { what: "the graph" });
        }
        self.driver.launch_graph(self.raw, stream.raw())
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.driver.destroy_graph(self.raw);
    }
}
