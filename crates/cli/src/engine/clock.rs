//! Time of the stages by the device's events, or what their kernels counted.

use tollgate::device::{self, Event, Gpu, LaunchCounters, LaunchRecord, Stream};
use tollgate::gpu::Observer;

use super::Counted;

/// Watches the stages of a step.
pub(super) enum Clock<'a> {
    /// An event before every stage, and one behind the last.
    Events(Vec<(&'static str, Event)>),
    /// The counters of the virtual GPU.
    Counters {
        gpu: &'a Gpu,
        /// The stage whose kernels are under way.
        running: Option<&'static str>,
        counted: Vec<Counted>,
        /// What the checks found.
        found: Option<device::Error>,
    },
}

/// What a step took.
#[derive(Debug)]
pub(super) enum Measured {
    /// Seconds of each stage, in order.
    Seconds(Vec<(&'static str, f64)>),
    /// Counts of each stage, in order.
    Counted(Vec<Counted>),
}

impl<'a> Clock<'a> {
    pub(super) fn counting(gpu: &'a Gpu) -> Self {
        // What was launched before is not part of the step.
        drop(gpu.take_launches());
        Self::Counters {
            gpu,
            running: None,
            counted: Vec::new(),
            found: None,
        }
    }

    pub(super) fn timing() -> Self {
        Self::Events(Vec::new())
    }

    /// What the checks of the virtual GPU found, if they did.
    pub(super) fn take_finding(&mut self) -> Option<device::Error> {
        match self {
            Self::Events(_) => None,
            Self::Counters { found, .. } => found.take(),
        }
    }

    /// Waits for the step and tells what its stages took.
    pub(super) fn finish(mut self, stream: &Stream) -> device::Result<Measured> {
        self.stage(stream, "end")?;
        stream.synchronize()?;
        match self {
            Self::Counters { counted, .. } => Ok(Measured::Counted(counted)),
            Self::Events(marks) => {
                let stages = marks.windows(2).map(|pair| {
                    let ms = pair[1].1.elapsed_ms(&pair[0].1)?;
                    Ok((pair[0].0, f64::from(ms) * 1e-3))
                });
                Ok(Measured::Seconds(stages.collect::<device::Result<_>>()?))
            }
        }
    }
}

impl Observer for Clock<'_> {
    fn stage(&mut self, stream: &Stream, name: &'static str) -> device::Result<()> {
        match self {
            Self::Events(marks) => marks.push((name, stream.record()?)),
            Self::Counters {
                gpu,
                running,
                counted,
                found,
            } => {
                if let Err(error) = stream.synchronize() {
                    *found = Some(error.clone());
                    return Err(error);
                }
                let launches = gpu.take_launches();
                counted.extend(running.map(|stage| sum(stage, &launches)));
                *running = Some(name);
            }
        }
        Ok(())
    }
}

fn sum(stage: &'static str, launches: &[LaunchRecord]) -> Counted {
    let mut counters = LaunchCounters::default();
    for launch in launches {
        counters.add(&launch.counters);
    }
    Counted {
        stage,
        launches: launches.len(),
        counters,
    }
}
