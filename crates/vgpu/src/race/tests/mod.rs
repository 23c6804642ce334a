//! Tests of the detector: litmus programs, and random ones against an exact model.

mod lifetimes;
mod litmus;
mod model;
mod proxies;
mod random;
mod rig;
mod warps;
