//! The exchange between devices.

use super::references;
use super::{Case, Failure, Params, Run, kernel_file, launch, same};

pub(super) fn cases() -> Vec<Case> {
    let file = kernel_file!("all_to_all");
    vec![
        Case::new("all_to_all", file, TWO, all_to_all).on_devices(2),
        Case::new("all_to_all:one device", file, ONE, all_to_all),
        Case::new("all_to_all:four devices", file, FOUR, all_to_all).on_devices(4),
    ]
}

/// The device of each rank, and how often what goes to and fro.
struct Exchange {
    placement: &'static [u32],
    pieces: usize,
    /// Epochs of each launch; the next launch goes on with the epochs.
    epochs: &'static [usize],
    warps: usize,
}

const TWO: &[Exchange] = &[
    Exchange {
        placement: &[0, 1],
        pieces: 37,
        epochs: &[3, 2],
        warps: 1,
    },
    Exchange {
        placement: &[0, 1],
        pieces: 1,
        epochs: &[1],
        warps: 2,
    },
    Exchange {
        placement: &[1],
        pieces: 5,
        epochs: &[2],
        warps: 1,
    },
    Exchange {
        placement: &[0, 1, 0],
        pieces: 33,
        epochs: &[2],
        warps: 1,
    },
    Exchange {
        placement: &[0, 1],
        pieces: 0,
        epochs: &[2],
        warps: 1,
    },
    Exchange {
        placement: &[0, 1],
        pieces: 300,
        epochs: &[0, 6, 1],
        warps: 4,
    },
];
/// All ranks share a device: streams run beside each other.
const ONE: &[Exchange] = &[
    Exchange {
        placement: &[0, 0],
        pieces: 20,
        epochs: &[2],
        warps: 1,
    },
    Exchange {
        placement: &[0],
        pieces: 20,
        epochs: &[3],
        warps: 2,
    },
];
const FOUR: &[Exchange] = &[
    Exchange {
        placement: &[0, 1, 2, 3],
        pieces: 9,
        epochs: &[2, 2],
        warps: 1,
    },
    Exchange {
        placement: &[0, 1, 2],
        pieces: 40,
        epochs: &[3],
        warps: 2,
    },
    Exchange {
        placement: &[0, 1, 2, 3, 3, 2, 1, 0],
        pieces: 8,
        epochs: &[2],
        warps: 1,
    },
    Exchange {
        placement: &[3, 1, 0, 2],
        pieces: 128,
        epochs: &[5],
        warps: 2,
    },
];

/// Polls before a kernel gives up; more than any schedule needs.
const SPINS: u32 = 1 << 24;
/// Pointers in each array of the kernel's struct.
const MAX_WORLD: usize = 8;

/// The memory of a rank.
struct Rank {
    recv: u64,
    filled: u64,
    drained: u64,
    digest: u64,
    error: u64,
}

fn all_to_all(run: &Run<'_>, p: &Exchange) -> Result<(), Failure> {
    let world = p.placement.len();
    let words = 4 * p.pieces;
    let mut random = run.random();
    let mut ranks = Vec::new();
    let mut streams = Vec::new();
    for &device in p.placement {
        let zeros = |len| run.upload_on(device, &vec![0u32; len]);
        ranks.push(Rank {
            recv: run.alloc_on::<u32>(device, world * words)?,
            filled: zeros(world)?,
            drained: zeros(world)?,
            digest: zeros(world * words)?,
            error: zeros(1)?,
        });
        streams.push(run.stream_on(device)?);
    }

    let mut want = vec![vec![0u32; world * words]; world];
    let mut first_epoch = 1;
    for &epochs in p.epochs {
        let sends: Vec<Vec<u32>> =
            random.list(world, |random| random.words(epochs * world * words));
        for (rank, send) in sends.iter().enumerate() {
            let send = run.upload_on(p.placement[rank], send)?;
            let of_ranks = |mut params: Params, pointer: fn(&Rank) -> u64| {
                for peer in 0..MAX_WORLD {
                    // What lies behind the world is not used.
                    params = params.u64(ranks.get(peer).map_or(0, pointer));
                }
                params
            };
            let params = Params::new().u64(send);
            let params = of_ranks(params, |rank| rank.recv);
            let params = of_ranks(params, |rank| rank.filled);
            let params = of_ranks(params, |rank| rank.drained)
                .u64(ranks[rank].digest)
                .u64(ranks[rank].error)
                .len(rank)
                .len(world)
                .len(p.pieces)
                .u32(first_epoch)
                .len(epochs)
                .u32(SPINS);
            let config = launch(world, 32 * p.warps, 0);
            run.launch_on(streams[rank], "all_to_all", &config, &params)?;
            let digest = references::all_to_all_digest(&sends, rank, epochs, words);
            let sums = want[rank].iter_mut().zip(digest);
            sums.for_each(|(sum, more)| *sum = sum.wrapping_add(more));
        }
        first_epoch += epochs as u32;
    }

    for stream in streams {
        run.machine().synchronize(stream)?;
    }
    for (rank, want) in ranks.iter().zip(&want) {
        same("error", &run.read::<u32>(rank.error, 1)?, &[0])?;
        same("digest", &run.read::<u32>(rank.digest, want.len())?, want)?;
    }
    Ok(())
}
