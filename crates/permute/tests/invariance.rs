//! The same bits for any number of threads, any batch around a token, any order of an expert's
//! rows.

mod common;

use common::{Device, cpu, gpus, sorted};
use half::bf16;
use tollgate_core::{Element, RoutingTable};
use tollgate_permute::{Permute, PermuteMaps};
use tollgate_testkit::{Case, GuardedMatrix, LogitKind, assert_same};

/// On the CPU large enough for several units of work and for blocks of tokens.
fn large(hidden: usize, device: &Device) -> Case {
    Case {
        name: "large",
        tokens: match device {
            Device::Cpu(_) => 2500,
            Device::Gpu(_) => 190,
        },
        experts: 9,
        hidden,
        intermediate: 1,
        logits: LogitKind::OneHot,
        seed: 11,
    }
}

/// All five outputs on random data.
struct Outputs<T> {
    rows: Vec<T>,
    y: Vec<T>,
    dx: Vec<T>,
    drows: Vec<T>,
    dweights: Vec<f32>,
}

struct Inputs<T> {
    x: Vec<T>,
    expert_rows: Vec<T>,
    addend: Vec<f32>,
}

impl<T: Element> Inputs<T> {
    fn random(case: &Case, assignments: usize) -> Self {
        Self {
            x: case.data(1).normals(case.tokens * case.hidden, 1.0),
            expert_rows: case.data(2).normals(assignments * case.hidden, 1.0),
            addend: case.data(3).normals(case.tokens * case.hidden, 1.0),
        }
    }

    fn run(
        &self,
        device: &Device,
        h: usize,
        table: &RoutingTable,
        maps: &PermuteMaps,
    ) -> Outputs<T> {
        let (t, a) = (table.num_tokens(), table.num_assignments());
        let x = GuardedMatrix::of(&self.x, t, h, 1);
        let expert_rows = GuardedMatrix::of(&self.expert_rows, a, h, 3);
        let addend = GuardedMatrix::of(&self.addend, t, h, 2);
        let mut rows = GuardedMatrix::<T>::poisoned(a, h, 1);
        device.permute(x.view(), maps, rows.view_mut()).unwrap();
        let mut y = GuardedMatrix::<T>::poisoned(t, h, 1);
        device
            .unpermute(expert_rows.view(), table, maps, y.view_mut())
            .unwrap();
        let mut dx = GuardedMatrix::<T>::poisoned(t, h, 1);
        let start = Some(addend.view());
        device
            .permute_backward(expert_rows.view(), table, maps, start, dx.view_mut())
            .unwrap();
        let mut drows = GuardedMatrix::<T>::poisoned(a, h, 1);
        let mut dweights = vec![f32::NAN; a];
        let gradients = (drows.view_mut(), &mut dweights[..]);
        device
            .unpermute_backward(
                x.view(),
                expert_rows.view(),
                table,
                maps,
                gradients.0,
                gradients.1,
            )
            .unwrap();
        Outputs {
            rows: rows.values("rows"),
            y: y.values("y"),
            dx: dx.values("dx"),
            drows: drows.values("drows"),
            dweights,
        }
    }
}

fn threads_agree<T: Element>(hidden: usize) {
    let case = large(hidden, &cpu(1));
    let table = case.routing_table(8);
    let maps = sorted(&table);
    let inputs = Inputs::<T>::random(&case, table.num_assignments());
    let one = inputs.run(&cpu(1), hidden, &table, &maps);
    for threads in [2, 3, 7] {
        let many = inputs.run(&cpu(threads), hidden, &table, &maps);
        assert_same("rows", &many.rows, &one.rows);
        assert_same("y", &many.y, &one.y);
        assert_same("dx", &many.dx, &one.dx);
        assert_same("drows", &many.drows, &one.drows);
        assert_same("dweights", &many.dweights, &one.dweights);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    threads_agree::<f32>(131);
    threads_agree::<bf16>(260);
    threads_agree::<f32>(1);
}

/// A token alone gives the bits that it gives in the middle of a batch.
#[test]
fn a_token_does_not_depend_on_its_batch() {
    for (_, device) in [("", cpu(2))].into_iter().chain(gpus()) {
        let case = large(67, &device);
        let h = case.hidden;
        let table = case.routing_table(8);
        let maps = sorted(&table);
        let inputs = Inputs::<bf16>::random(&case, table.num_assignments());
        let all = inputs.run(&device, h, &table, &maps);
        for token in (0..case.tokens).step_by(case.tokens / 4) {
            let assignments = table.assignments_of(token);
            let row: Vec<(i32, f32)> = assignments
                .clone()
                .map(|a| (table.expert_indices[a], table.routing_weights[a]))
                .collect();
            let single = RoutingTable::from_rows(table.num_experts(), &[row]).unwrap();
            let single_maps = sorted(&single);
            // The token's rows, in the order that the table of one token gives them.
            let mut expert_rows = vec![];
            for &a in &single_maps.assignment_of_row {
                let r = maps.row_of_assignment[assignments.start + a as usize] as usize;
                expert_rows.extend_from_slice(&inputs.expert_rows[r * h..(r + 1) * h]);
            }
            let of_token = token * h..(token + 1) * h;
            let x = inputs.x[of_token.clone()].to_vec();
            let addend = inputs.addend[of_token.clone()].to_vec();
            let alone = Inputs {
                x,
                expert_rows,
                addend,
            }
            .run(&device, h, &single, &single_maps);
            assert_same("y", &alone.y, &all.y[of_token.clone()]);
            assert_same("dx", &alone.dx, &all.dx[of_token]);
            assert_same(
                "dweights",
                &alone.dweights,
                &all.dweights[assignments.clone()],
            );
        }
    }
}

/// Maps need not be stable: any numbering of the rows gives the outputs of its rows. Here an
/// expert's rows run backwards, which the blocks of tokens cannot use.
#[test]
fn any_order_of_the_rows_is_followed() {
    for (_, device) in [("", cpu(2))].into_iter().chain(gpus()) {
        let case = large(140, &device);
        let h = case.hidden;
        let table = case.routing_table(4);
        let stable = sorted(&table);
        let mut maps = stable.clone();
        let mut stable_row_of = vec![0; table.num_assignments()];
        for expert in table.expert_offsets.windows(2) {
            for row in expert[0]..expert[1] {
                let mirrored = (expert[0] + expert[1] - 1 - row) as usize;
                stable_row_of[row as usize] = mirrored;
                maps.assignment_of_row[row as usize] = stable.assignment_of_row[mirrored];
                maps.token_of_row[row as usize] = stable.token_of_row[mirrored];
                maps.row_of_assignment[stable.assignment_of_row[mirrored] as usize] = row;
            }
        }
        let inputs = Inputs::<f32>::random(&case, table.num_assignments());
        let mut mirrored = Inputs::<f32>::random(&case, table.num_assignments());
        for (row, &source) in stable_row_of.iter().enumerate() {
            mirrored.expert_rows[row * h..(row + 1) * h]
                .copy_from_slice(&inputs.expert_rows[source * h..(source + 1) * h]);
        }
        let plain = inputs.run(&device, h, &table, &stable);
        let other = mirrored.run(&device, h, &table, &maps);
        assert_same("y", &other.y, &plain.y);
        assert_same("dx", &other.dx, &plain.dx);
        assert_same("dweights", &other.dweights, &plain.dweights);
        for (row, &source) in stable_row_of.iter().enumerate() {
            let (row, source) = (row * h..(row + 1) * h, source * h..(source + 1) * h);
            assert_same(
                "rows",
                &other.rows[row.clone()],
                &plain.rows[source.clone()],
            );
            assert_same("drows", &other.drows[row], &plain.drows[source]);
        }
    }
}
