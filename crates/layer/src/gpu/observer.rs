//! Who wants to know where in a stream's work the stages of a pass begin.

use tollgate_device::{Result, Stream};

/// Is told of every stage of a pass before its first kernel is put into the stream.
///
/// Stages have the names of [`Stage::name`](crate::Stage::name). Record events to time them; on the
/// virtual GPU synchronise and take the launches to count them (which cannot be captured).
pub trait Observer {
    /// A stage begins, and with it the one before ends.
    ///
    /// # Errors
    /// End the pass.
    fn stage(&mut self, stream: &Stream, name: &'static str) -> Result<()>;
}

/// Nobody does.
impl Observer for () {
    fn stage(&mut self, _: &Stream, _: &'static str) -> Result<()> {
        Ok(())
    }
}
