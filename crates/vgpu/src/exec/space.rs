//! Addresses: what they name, whether they may be used, and byte ranges for bulk copies.
//!
//! An address is looked at in two steps. [`Target`] says which memory it means (a generic address may
//! mean any); a check of bounds and alignment then makes it a [`Place`].

use super::{Core, Env, Fault};
use crate::lane::LANES;
use crate::machine::{
    CLUSTER_SHIFT, LOCAL_START, LOCAL_WINDOW, PARAM_WINDOW, SHARED_BASE, SHARED_WINDOW,
    WINDOW_BYTES,
};
use crate::memory::AddressError;
use crate::ptx::ast::Space;
use crate::report::Kind;

/// Bits of a shared address that count within a block.
const OFFSET_MASK: u64 = (1 << CLUSTER_SHIFT) - 1;

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// [`Kind::OutOfBounds`], [`Kind::UseAfterFree`], [`Kind::Misaligned`], or [`Kind::Undefined`]
    /// for a write to constant memory.
    pub kind: Kind,
    /// In words, with the numbers.
    pub message: String,
}

impl Problem {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A write to what kernels may only read.
    pub(super) fn read_only(address: u64) -> Self {
        let message = format!("write to read-only memory (constants, parameters) at {address:#x}");
        Self::new(Kind::Undefined, message)
    }

    /// A `.const` access of something else.
    pub(super) fn not_constant(address: u64) -> Self {
        let message = format!("address {address:#x} is not in constant memory");
        Self::new(Kind::OutOfBounds, message)
    }
}

impl From<AddressError> for Problem {
    fn from(error: AddressError) -> Self {
        let kind = match error {
            AddressError::Unmapped { .. } | AddressError::PastEnd { .. } => Kind::OutOfBounds,
            AddressError::Freed { .. } => Kind::UseAfterFree,
        };
        Self::new(kind, error.to_string())
    }
}

/// The memory that an address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Global or constant memory; addresses in it are those of [`crate::memory`].
    Global,
    /// Shared memory of the block with this rank in the cluster; addresses are `shared::cta` offsets.
    Shared(usize),
    /// Local memory of the thread.
    Local,
    /// The parameter block.
    Param,
}

/// Bytes that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In global or constant memory.
    Global {
        /// Index for [`crate::memory::Table::get`].
        allocation: usize,
        /// Byte offset in it.
        offset: u64,
    },
    /// In shared memory.
    Shared {
        /// Rank of the block in the cluster.
        rank: usize,
        /// `shared::cta` offset.
        offset: u32,
    },
    /// In local memory.
    Local {
        /// Byte offset in the thread's.
        offset: u32,
    },
    /// In the parameter block.
    Param {
        /// Byte offset in it.
        offset: u32,
    },
}

/// Which memory an address of a space means, seen by the block of rank `own`, and the address within
/// that memory.
///
/// An address that means nothing (a rank beyond the cluster) is found when it is checked.
#[inline(always)]
pub fn locate(space: Space, own: usize, address: u64) -> (Target, u64) {
    match space {
        Space::Global | Space::Const => (Target::Global, address),
        Space::Shared | Space::SharedCluster => shared(own, address),
        Space::Local | Space::Reg => (Target::Local, address),
        Space::Param => (Target::Param, address),
        Space::Generic => {
            let inside = address & (WINDOW_BYTES - 1);
            match address - inside {
                SHARED_WINDOW => shared(own, inside),
                LOCAL_WINDOW => (Target::Local, inside),
                PARAM_WINDOW => (Target::Param, inside),
                _ => (Target::Global, address),
            }
        }
    }
}

/// An address of more than 32 bits names a rank that no cluster has.
#[inline(always)]
fn shared(own: usize, address: u64) -> (Target, u64) {
    let rank = match (address >> CLUSTER_SHIFT) as usize {
        0 => own,
        named => named - 1,
    };
    (Target::Shared(rank), address & OFFSET_MASK)
}

impl Env<'_> {
    /// The allocation that holds `bytes` bytes of global memory from `address` on.
    ///
    /// # Errors
    /// Out of bounds, or freed.
    pub fn global_range(&self, address: u64, bytes: u64) -> Result<usize, Problem> {
        Ok(self.memory.find(address, bytes)?)
    }

    /// As [`Self::global_range`], for a write.
    ///
    /// # Errors
    /// As there; or the memory is constant.
    pub fn writable_range(&self, address: u64, bytes: u64) -> Result<usize, Problem> {
        let index = self.global_range(address, bytes)?;
        if self.memory.get(index).is_read_only() {
            return Err(Problem::read_only(address));
        }
        Ok(index)
    }

    /// Checks `bytes` bytes of the shared memory of the block with `rank`.
    ///
    /// # Errors
    /// Out of bounds: the rank's or the block's. The block has ended.
    pub fn shared_range(&self, rank: usize, offset: u64, bytes: u64) -> Result<(), Problem> {
        let Some(block) = self.cluster.blocks.get(rank) else {
            let address = (rank as u64 + 1) << CLUSTER_SHIFT | offset;
            let message = if address >= WINDOW_BYTES {
                format!(
                    "{address:#x} has more than the 32 bits of a shared address: cvta.to.shared of \
                     a generic address is missing, or that was not in shared memory"
                )
            } else {
                format!(
                    "shared::cluster address {address:#x} names rank {rank} of a cluster of {} \
                     blocks",
                    self.cluster.blocks.len()
                )
            };
            return Err(Problem::new(Kind::OutOfBounds, message));
        };
        if block.live_threads == 0 {
            let [x, y, z] = block.index;
            let message = format!(
                "all threads of block ({x},{y},{z}), of rank {rank}, have exited, and its shared \
                 memory went with them: a cluster barrier before the end is missing"
            );
            return Err(Problem::new(Kind::UseAfterFree, message));
        }
        if block.shared.holds(offset, bytes) {
            return Ok(());
        }
        let end = block.shared.end();
        let size = end - SHARED_BASE;
        let message = if offset < u64::from(SHARED_BASE) {
            format!(
                "{bytes} bytes at shared address {offset:#x} lie before the {size} bytes of shared \
                 memory at {SHARED_BASE:#x}"
            )
        } else {
            format!(
                "{bytes} bytes at shared address {offset:#x} run past the end of the {size} bytes \
                 of shared memory at {SHARED_BASE:#x} (offset {})",
                offset - u64::from(SHARED_BASE)
            )
        };
        Err(Problem::new(Kind::OutOfBounds, message))
    }

    /// The block and the offset in it that a `.shared::cta` or `.shared::cluster` address names, for
    /// an instruction of the block of rank `own`, checked for `bytes` bytes.
    ///
    /// # Errors
    /// Out of bounds; or a `shared::cta` address that is another block's.
    pub fn shared_place(
        &self,
        space: Space,
        own: usize,
        address: u32,
        bytes: u64,
    ) -> Result<(usize, u32), Problem> {
        match self.place(space, own, u64::from(address), bytes)? {
            Place::Shared { rank, offset } => Ok((rank, offset)),
            _ => Err(Problem::new(
                Kind::OutOfBounds,
                format!("address {address:#x} is not in shared memory"),
            )),
        }
    }

    /// Checks bounds, not alignment. Local memory is checked against the kernel's size of it.
    ///
    /// # Errors
    /// Out of bounds, or freed.
    pub fn place(
        &self,
        space: Space,
        own: usize,
        address: u64,
        bytes: u64,
    ) -> Result<Place, Problem> {
        let (target, address) = locate(space, own, address);
        if let Target::Shared(rank) = target
            && space == Space::Shared
            && rank != own
            && rank < self.cluster.blocks.len()
        {
            return Err(Problem::new(
                Kind::OutOfBounds,
                format!(
                    "shared address {:#x} is in the block of rank {rank}, not in this one (rank \
                     {own}): that needs .shared::cluster",
                    (rank as u64 + 1) << CLUSTER_SHIFT | address
                ),
            ));
        }
        self.place_in(target, address, bytes)
    }

    /// As [`Self::place`], of an address that was located.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn place_in(&self, target: Target, address: u64, bytes: u64) -> Result<Place, Problem> {
        match target {
            Target::Global => {
                let allocation = self.global_range(address, bytes)?;
                Ok(Place::Global {
                    allocation,
                    offset: address - self.memory.get(allocation).base(),
                })
            }
            Target::Shared(rank) => {
                self.shared_range(rank, address, bytes)?;
                Ok(Place::Shared {
                    rank,
                    offset: address as u32,
                })
            }
            Target::Local => {
                let size = u64::from(self.program.local_bytes);
                let start = u64::from(LOCAL_START);
                if address < start || !fits(address - start, bytes, size) {
                    let message = format!(
                        "{bytes} bytes at local address {address:#x} are not in the {size} bytes of \
                         the thread's local memory at {start:#x}"
                    );
                    return Err(Problem::new(Kind::OutOfBounds, message));
                }
                Ok(Place::Local {
                    offset: address as u32,
                })
            }
            Target::Param => {
                let size = self.grid.params.len() as u64;
                if !fits(address, bytes, size) {
                    let message = format!(
                        "{bytes} bytes at offset {address} run past the end of the {size}-byte \
                         parameter block"
                    );
                    return Err(Problem::new(Kind::OutOfBounds, message));
                }
                Ok(Place::Param {
                    offset: address as u32,
                })
            }
        }
    }

    /// Copies bytes out of global memory that [`Self::global_range`] allowed; says whether all of them
    /// had been written. Fills with zero what is not there any more.
    pub fn read_global(&self, address: u64, out: &mut [u8]) -> bool {
        let bytes = out.len() as u64;
        let Ok(index) = self.memory.find(address, bytes) else {
            out.fill(0);
            return true;
        };
        let allocation = self.memory.get(index);
        let offset = address - allocation.base();
        allocation.read(offset, out);
        allocation.is_written(offset, bytes)
    }

    /// Copies bytes into global memory that [`Self::writable_range`] allowed and marks them written.
    /// Writes nothing to what is not there any more.
    pub fn write_global(&self, address: u64, from: &[u8]) {
        if let Ok(index) = self.memory.find(address, from.len() as u64) {
            let allocation = self.memory.get(index);
            allocation.write(address - allocation.base(), from);
        }
    }

    /// Copies bytes out of shared memory that [`Self::shared_range`] allowed; says whether all of them
    /// had been written.
    pub fn read_shared(&self, rank: usize, offset: u32, out: &mut [u8]) -> bool {
        let shared = &self.cluster.blocks[rank].shared;
        let bytes = out.len() as u32;
        out.copy_from_slice(shared.bytes(offset, bytes));
        shared.is_written(offset, bytes)
    }

    /// Copies bytes into shared memory that [`Self::shared_range`] allowed and marks them written.
    pub fn write_shared(&mut self, rank: usize, offset: u32, from: &[u8]) {
        self.cluster.blocks[rank].shared.write(offset, from);
    }
}

/// Whether `bytes` bytes from `offset` on are among the first `size`.
fn fits(offset: u64, bytes: u64, size: u64) -> bool {
    offset.checked_add(bytes).is_some_and(|end| end <= size)
}

impl Core<'_> {
    /// Checks a lane's access of `bytes` bytes (a power of two): bounds, and that the address is a
    /// multiple of them.
    ///
    /// # Errors
    /// A fault that names the address, the lane and what is near.
    pub fn resolve(
        &self,
        space: Space,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Result<Place, Box<Fault>> {
        self.env
            .place(space, self.block, address, bytes)
            .and_then(|place| self.env.aligned(place, address, bytes))
            .map_err(|problem| self.address_fault(lane, bytes, &problem))
    }

    /// As [`Self::resolve`], for a write.
    ///
    /// # Errors
    /// As there; or the memory is constant.
    pub fn resolve_write(
        &self,
        space: Space,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Result<Place, Box<Fault>> {
        let place = self.resolve(space, lane, address, bytes)?;
        match place {
            Place::Global { allocation, .. } if self.env.memory.get(allocation).is_read_only() => {
                Err(self.address_fault(lane, bytes, &Problem::read_only(address)))
            }
            _ => Ok(place),
        }
    }

    /// A fault about a lane's address.
    pub fn address_fault(&self, lane: usize, bytes: u64, problem: &Problem) -> Box<Fault> {
        let message = format!("lane {lane}, {bytes} bytes: {}", problem.message);
        self.fault(problem.kind, lane, message)
    }

    /// Where a thread's local memory lies in that of its warp: its first byte.
    #[inline(always)]
    pub(super) fn local_start(&self, lane: usize) -> usize {
        lane * (self.warp.local.len() / LANES)
    }
}

impl Env<'_> {
    /// Whether a checked place is a multiple of `bytes`, a power of two.
    pub(super) fn aligned(&self, place: Place, address: u64, bytes: u64) -> Result<Place, Problem> {
        let inside = match place {
            Place::Global { .. } => address,
            Place::Shared { offset, .. } | Place::Local { offset } | Place::Param { offset } => {
                u64::from(offset)
            }
        };
        if inside.is_multiple_of(bytes) {
            return Ok(place);
        }
        let around = match place {
            Place::Global { allocation, offset } => {
                let allocation = self.memory.get(allocation);
                format!(
                    " (offset {offset} of the {}-byte allocation at {:#x})",
                    allocation.bytes(),
                    allocation.base()
                )
            }
            _ => String::new(),
        };
        Err(Problem::new(
            Kind::Misaligned,
            format!("address {address:#x} is not a multiple of {bytes}{around}"),
        ))
    }
}
