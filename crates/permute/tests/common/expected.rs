//! What the CPU makes of random data.

use tollgate_core::{Cpu, Element, RoutingTable, RowView, RowViewMut};
use tollgate_permute::Permute;
use tollgate_testkit::{Case, LogitKind};

use super::sorted;

/// A case of these sizes.
pub fn case(tokens: usize, experts: usize, hidden: usize) -> Case {
    Case {
        name: "device rows",
        tokens,
        experts,
        hidden,
        intermediate: 1,
        logits: LogitKind::Random,
        seed: 5,
    }
}

/// Everything that goes in, and what the CPU makes of it.
pub struct Expected<T> {
    pub table: RoutingTable,
    pub x: Vec<T>,
    pub rows: Vec<T>,
    pub addend: Vec<f32>,
    pub permuted: Vec<T>,
    pub y: Vec<T>,
    pub dx: Vec<T>,
    pub drows: Vec<T>,
    pub dweights: Vec<f32>,
}

impl<T: Element> Expected<T> {
    pub fn new(case: &Case, max_k: usize) -> Self {
        Self::of(case, case.routing_table(max_k))
    }

    pub fn of(case: &Case, table: RoutingTable) -> Self {
        let maps = sorted(&table);
        let (t, h, a) = (case.tokens, case.hidden, table.num_assignments());
        let x: Vec<T> = case.data(1).normals(t * h, 1.0);
        let rows: Vec<T> = case.data(2).normals(a * h, 1.0);
        let addend: Vec<f32> = case.data(3).normals(t * h, 1.0);
        let cpu = Cpu::new(1).unwrap();
        let (mut permuted, mut drows) = (vec![T::NAN; a * h], vec![T::NAN; a * h]);
        let (mut y, mut dx) = (vec![T::NAN; t * h], vec![T::NAN; t * h]);
        let mut dweights = vec![f32::NAN; a];
        let view_x = RowView::new(&x, t, h).unwrap();
        let view_rows = RowView::new(&rows, a, h).unwrap();
        let out = RowViewMut::new(&mut permuted, a, h).unwrap();
        cpu.permute(view_x, &maps, out).unwrap();
        let out = RowViewMut::new(&mut y, t, h).unwrap();
        cpu.unpermute(view_rows, &table, &maps, out).unwrap();
        let start = Some(RowView::new(&addend, t, h).unwrap());
        let out = RowViewMut::new(&mut dx, t, h).unwrap();
        cpu.permute_backward(view_rows, &table, &maps, start, out)
            .unwrap();
        let out = RowViewMut::new(&mut drows, a, h).unwrap();
        cpu.unpermute_backward(view_x, view_rows, &table, &maps, out, &mut dweights)
            .unwrap();
        Self {
            table,
            x,
            rows,
            addend,
            permuted,
            y,
            dx,
            drows,
            dweights,
        }
    }
}
