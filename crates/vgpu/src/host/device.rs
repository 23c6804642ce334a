//! Devices: their state, access to each other's memory, and their reset.

use super::machine::{Machine, lock};
use super::{Error, Result};
use crate::memory::Owner;
use crate::report::Report;

impl Machine {
    /// What a device failed with, if it has.
    pub fn fault(&self, device: u32) -> Option<Report> {
        self.shared.queues().device(device).ok()?.fault.clone()
    }

    /// Ends everything on a device: work, memory, modules, streams, events, peer access from it; and
    /// forgives its fault. Other host threads that wait for it go on.
    ///
    /// # Errors
    /// A device that does not exist.
    pub fn reset(&self, device: u32) -> Result<()> {
        let mut engine = self.shared.engine();
        let mut guard = self.shared.queues();
        let queues = &mut *guard;
        queues.device(device)?;
        queues.drop_work(device);
        engine.abandon(device);
        let streams: Vec<u32> = queues
            .lanes
            .iter()
            .filter(|&(&id, lane)| lane.device == device && id != device)
            .map(|(&id, _)| id)
            .collect();
        for stream in streams {
            queues.lanes.remove(&stream);
            queues.gone.push(stream);
        }
        queues.events.retain(|_, event| event.device != device);
        queues
            .captures
            .retain(|_, capture| capture.device != device);
        for lane in queues.lanes.values_mut() {
            if let Some((id, _)) = &lane.capture
                && !queues.captures.contains_key(id)
            {
                lane.capture = None;
            }
        }
        let table = self.memory().snapshot();
        for allocation in table.allocations() {
            let (Owner::Device(owner) | Owner::Module(owner)) = allocation.owner() else {
                continue;
            };
            if owner == device && self.memory().free(allocation.base()).is_ok() {
                queues.allocations.remove(&allocation.base());
                queues
                    .forgotten
                    .push((allocation.base(), allocation.bytes()));
            }
        }
        let state = &mut queues.devices[device as usize];
        state.fault = None;
        state.used = 0;
        state.peers = 0;
        state.resets += 1;
        drop(guard);
        self.shared.wake.notify_all();
        Ok(())
    }

    fn pair(&self, device: u32, peer: u32) -> Result<()> {
        let queues = self.shared.queues();
        queues.device(device)?;
        queues.device(peer)?;
        Ok(())
    }

    /// Whether kernels of a device could be allowed to touch the memory of another one: always, but for
    /// its own.
    ///
    /// # Errors
    /// A device that does not exist.
    pub fn can_access_peer(&self, device: u32, peer: u32) -> Result<bool> {
        self.pair(device, peer)?;
        Ok(device != peer)
    }

    /// Allows kernels of a device to touch the memory of another one. Without it such an access is out
    /// of bounds.
    ///
    /// # Errors
    /// The same device twice; access that is enabled.
    pub fn enable_peer(&self, device: u32, peer: u32) -> Result<()> {
        self.set_peer(device, peer, true)
    }

    /// Ends it again.
    ///
    /// # Errors
    /// Access that is not enabled.
    pub fn disable_peer(&self, device: u32, peer: u32) -> Result<()> {
        self.set_peer(device, peer, false)
    }

    fn set_peer(&self, device: u32, peer: u32, enable: bool) -> Result<()> {
        self.pair(device, peer)?;
        if device == peer {
            return Err(Error::PeerAccess(format!(
                "device {device} is no peer of itself"
            )));
        }
        let mut queues = self.shared.queues();
        queues.healthy(device)?;
        let peers = &mut queues.devices[device as usize].peers;
        let bit = 1 << peer;
        if (*peers & bit != 0) == enable {
            let state = if enable { "already" } else { "not" };
            return Err(Error::PeerAccess(format!(
                "access of device {device} to device {peer} is {state} enabled"
            )));
        }
        *peers ^= bit;
        Ok(())
    }

    /// Calls `hook` with every report as soon as it is found, from the host thread that runs the
    /// machine then.
    pub fn on_report(&self, hook: std::sync::Arc<dyn Fn(&Report) + Send + Sync>) {
        lock(&self.shared.hooks).push(hook);
    }
}
