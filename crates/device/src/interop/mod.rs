//! Streams and memory of other frameworks, by their own types.
//!
//! Each framework is a feature that is off: with none of them, [`crate::Gpu::share_stream`] and
//! [`crate::DeviceSlice::from_raw`] take what any framework has.

#[cfg(feature = "cust")]
mod cust;
