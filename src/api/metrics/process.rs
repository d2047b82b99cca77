//! What the system knows of this process: CPU, memory, threads, descriptors.

use procfs::process::{LimitValue, Process as OfSystem};
use procfs::{Current, Meminfo};

/// The figures of this process.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Seconds of CPU time, user and system.
    pub cpu_seconds: f64,
    /// Bytes of memory in use.
    pub resident: u64,
    /// Bytes of address space.
    pub virtual_size: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Most descriptors there may be; 0 for no limit.
    pub max_descriptors: u64,
    /// When it was started, seconds since 1970.
    pub started: f64,
    /// Bytes of memory that the host has left.
    pub free_memory: u64,
}

impl Process {
    /// Reads them. What the system does not say is 0.
    pub fn read() -> Self {
        Self::try_read().unwrap_or_else(|error| {
            tracing::debug!("the figures of this process cannot be read: {error}");
            Self::default()
        })
    }

    fn try_read() -> procfs::ProcResult<Self> {
        let own = OfSystem::myself()?;
        let stat = own.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max = match own.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => limit,
            LimitValue::Unlimited => 0,
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident: stat.rss * procfs::page_size(),
            virtual_size: stat.vsize,
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            descriptors: own.fd_count()? as u64,
            max_descriptors: max,
            started: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
            free_memory: Meminfo::current()?.mem_available.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_this_process() {
        let process = Process::read();
        assert!(process.resident > 1 << 20 && process.virtual_size > process.resident, "{process:?}");
        assert!(process.threads >= 2 && process.descriptors >= 3 && process.free_memory > 1 << 20, "{process:?}");
        assert!(process.started > 1.7e9, "{process:?}");
    }
}
