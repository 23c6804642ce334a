//! The list of cases, and what the tests run on them.
#![allow(dead_code)]

pub mod device;
pub mod expected;

use tollgate_core::{Cpu, Element, Result, RoutingTable, RowView, RowViewMut};
use tollgate_device::Gpu;
use tollgate_device::testing::devices;
use tollgate_permute::{Permute, PermuteMaps};
use tollgate_testkit::{Case, LogitKind, edge_cases};

/// Experts a token at most, as every case is run.
pub const MAX_K: [usize; 3] = [1, 2, 8];

/// The named cases and two that are large enough for threads and for blocks of tokens.
pub fn cases() -> Vec<Case> {
    let mut cases = edge_cases();
    for (name, tokens, experts, hidden) in [
        ("parallel", 700, 12, 130),
        ("blocks of tokens", 1500, 5, 203),
    ] {
        let (intermediate, logits, seed) = (1, LogitKind::Random, 7);
        cases.push(Case {
            name,
            tokens,
            experts,
            hidden,
            intermediate,
            logits,
            seed,
        });
    }
    cases
}

/// The table of a case with f32 weights, its copy with f64 weights, and its maps.
pub fn routed(case: &Case, max_k: usize) -> (RoutingTable, RoutingTable<f64>, PermuteMaps) {
    let table = case.routing_table(max_k);
    let maps = sorted(&table);
    let exact = widen(&table);
    (table, exact, maps)
}

pub fn sorted(table: &RoutingTable) -> PermuteMaps {
    let mut maps = PermuteMaps::default();
    Cpu::new(1).unwrap().sort(table, &mut maps).unwrap();
    maps
}

pub fn widen(table: &RoutingTable) -> RoutingTable<f64> {
    RoutingTable {
        token_offsets: table.token_offsets.clone(),
        expert_indices: table.expert_indices.clone(),
        routing_weights: f64s(&table.routing_weights),
        expert_offsets: table.expert_offsets.clone(),
    }
}

pub fn f64s<T: Element>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

/// What the shared test bodies run on.
#[derive(Debug, Clone)]
pub enum Device {
    Cpu(Cpu),
    Gpu(Gpu),
}

impl Device {
    /// The cases that it runs: on a GPU the large ones are left out, the virtual GPU takes its
    /// time.
    pub fn cases(&self) -> Vec<Case> {
        match self {
            Self::Cpu(_) => cases(),
            Self::Gpu(_) => edge_cases(),
        }
    }
}

pub fn cpu(threads: usize) -> Device {
    Device::Cpu(Cpu::new(threads).unwrap())
}

/// The CPU with one thread and with two, and every GPU that tests run on.
pub fn implementations() -> Vec<(&'static str, Device)> {
    [cpus(), gpus()].concat()
}

/// The CPU with one thread and with two.
pub fn cpus() -> Vec<(&'static str, Device)> {
    vec![("cpu, 1 thread", cpu(1)), ("cpu, 2 threads", cpu(2))]
}

/// Every GPU that tests run on.
pub fn gpus() -> Vec<(&'static str, Device)> {
    let devices = devices().iter();
    devices
        .map(|(name, gpu)| (name.as_str(), Device::Gpu(gpu.clone())))
        .collect()
}

/// Runs a generic check on the CPU for every case, k, dtype and row padding; on the GPUs for every
/// named case with one dtype a k, in turn: the virtual GPU takes its time.
#[macro_export]
macro_rules! for_all {
    ($name:literal, $check:ident) => {
        use tollgate_testkit::{edge_cases, run_all};
        use $crate::common::{MAX_K, cases, cpus, gpus};
        run_all($name, &cases(), &cpus(), |case, device| {
            for (max_k, pad) in MAX_K.into_iter().zip([0, 3, 5]) {
                $check::<f32>(case, device, max_k, pad);
                $check::<f16>(case, device, max_k, pad);
                $check::<bf16>(case, device, max_k, pad);
            }
        });
        for (name, gpu) in gpus() {
            let mut turn = 0;
            run_all($name, &edge_cases(), &[(name, gpu)], |case, device| {
                turn += 1;
                for (i, (max_k, pad)) in MAX_K.into_iter().zip([0, 3, 5]).enumerate() {
                    match (turn + i) % 3 {
                        0 => $check::<f32>(case, device, max_k, pad),
                        1 => $check::<f16>(case, device, max_k, pad),
                        _ => $check::<bf16>(case, device, max_k, pad),
                    }
                }
            });
        }
    };
}

impl Permute for Device {
    fn sort(&self, table: &RoutingTable, maps: &mut PermuteMaps) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.sort(table, maps),
            Self::Gpu(gpu) => gpu.sort(table, maps),
        }
    }

    fn permute<T: Element>(
        &self,
        x: RowView<'_, T>,
        maps: &PermuteMaps,
        rows: RowViewMut<'_, T>,
    ) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.permute(x, maps, rows),
            Self::Gpu(gpu) => gpu.permute(x, maps, rows),
        }
    }

    fn unpermute<T: Element>(
        &self,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        y: RowViewMut<'_, T>,
    ) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.unpermute(rows, table, maps, y),
            Self::Gpu(gpu) => gpu.unpermute(rows, table, maps, y),
        }
    }

    fn permute_backward<T: Element>(
        &self,
        drows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        addend: Option<RowView<'_, f32>>,
        dx: RowViewMut<'_, T>,
    ) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.permute_backward(drows, table, maps, addend, dx),
            Self::Gpu(gpu) => gpu.permute_backward(drows, table, maps, addend, dx),
        }
    }

    fn unpermute_backward<T: Element>(
        &self,
        dy: RowView<'_, T>,
        rows: RowView<'_, T>,
        table: &RoutingTable,
        maps: &PermuteMaps,
        drows: RowViewMut<'_, T>,
        dweights: &mut [f32],
    ) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.unpermute_backward(dy, rows, table, maps, drows, dweights),
            Self::Gpu(gpu) => gpu.unpermute_backward(dy, rows, table, maps, drows, dweights),
        }
    }
}
