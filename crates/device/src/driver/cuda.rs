//! CUDA as a driver.

use super::Driver;
use crate::{DeviceSpec, Error, Result};

/// A CUDA device by its primary context.
pub(crate) struct CudaDriver;
