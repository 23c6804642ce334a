//! Random sequences of calls, as the fuzz target makes them, for a bounded time.

use crate::host::check_host_api;
use crate::machine::Rng;

#[test]
fn any_sequence_of_calls_ends_well() {
    for seed in 0..600 {
        let mut rng = Rng::new(seed, 0);
        let length = 40 + rng.below(1200) as usize;
        let data: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
        if let Err(violation) = check_host_api(&data) {
            panic!("seed {seed}: {violation}");
        }
    }
}
