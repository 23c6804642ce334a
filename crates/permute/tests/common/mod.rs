//! The list of cases, and what the tests run on them.
#![allow(dead_code)]

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

pub fn cpu(threads: usize) -> Device {
    Device::Cpu(Cpu::new(threads).unwrap())
}

/// The CPU with one thread and with two, and every GPU that tests run on.
pub fn implementations() -> Vec<(&'static str, Device)> {
    let cpus = [("cpu, 1 thread", cpu(1)), ("cpu, 2 threads", cpu(2))];
    cpus.into_iter().chain(gpus()).collect()
}

/// Every GPU that tests run on.
pub fn gpus() -> impl Iterator<Item = (&'static str, Device)> {
    let devices = devices().iter();
    devices.map(|(name, gpu)| (name.as_str(), Device::Gpu(gpu.clone())))
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
