//! Files of recordings on the disk: a free name to write under, the final name, never over anything.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with, statvfs};

use super::name::{temporary, with_suffix};

/// How many names are tried before giving up: more files of one name than this are a mistake in the template.
const TRIES: u32 = 10_000;

/// The file whose lock says that a server writes into a directory.
const LOCK: &str = ".weir.lock";

/// Marks `dir` as this process's own until the file is dropped; `None` when another process has it.
///
/// # Errors
/// The system's: no permission, or a file system without locks.
pub(super) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Creates the temporary file of `name` in `dir` and gives its path. A name that is taken, finished or not, gets a suffix.
///
/// # Errors
/// The system's: no directory, no permission, no room.
pub(super) fn reserve(dir: &Path, name: &str) -> io::Result<PathBuf> {
    for candidate in names(name) {
        let path = dir.join(temporary(&candidate));
        if dir.join(&candidate).exists() {
            continue;
        }
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Syncs a finished file to the disk and gives it its final name in the same directory.
///
/// # Errors
/// The system's.
pub(super) fn commit(file: &Path, name: &str) -> io::Result<PathBuf> {
    File::open(file)?.sync_all()?;
    let dir = file.parent().unwrap_or(Path::new("."));
    for candidate in names(name) {
        let to = dir.join(candidate);
        match renameat_with(CWD, file, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                // The name survives a power cut once the directory is on the disk too.
                File::open(dir)?.sync_all()?;
                return Ok(to);
            }
            Err(rustix::io::Errno::EXIST) => {}
            // A file system that cannot refuse to replace: look first.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.exists() => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                std::fs::rename(file, &to)?;
                return Ok(to);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Bytes that may still be written to the file system of `dir`.
///
/// # Errors
/// The system's.
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let figures = statvfs(dir)?;
    Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
}

/// `a.mp4`, `a-2.mp4`, `a-3.mp4` …
fn names(name: &str) -> impl Iterator<Item = String> {
    let first = std::iter::once(name.to_owned());
    first.chain((2..TRIES).map(move |n| with_suffix(name, n)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_is_ever_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.mp4"), "old").unwrap();
        let first = reserve(dir.path(), "a.mp4").unwrap();
        assert!(first.ends_with("a-2.mp4.tmp"), "{first:?}");
        let second = reserve(dir.path(), "a.mp4").unwrap();
        assert!(second.ends_with("a-3.mp4.tmp"), "{second:?}");
        std::fs::write(&first, "one").unwrap();
        std::fs::write(&second, "two").unwrap();
        assert!(commit(&first, "a.mp4").unwrap().ends_with("a-2.mp4"));
        assert!(commit(&second, "a.mp4").unwrap().ends_with("a-3.mp4"));
        assert_eq!(std::fs::read_to_string(dir.path().join("a.mp4")).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(dir.path().join("a-3.mp4")).unwrap(), "two");
    }

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(dir.path()).unwrap().is_none());
        drop(first);
        assert!(lock(dir.path()).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_is_gone_is_an_error() {
        assert!(reserve(Path::new("/nowhere/at/all"), "a.mp4").is_err());
        assert!(free_space(Path::new("/nowhere/at/all")).is_err());
        assert!(free_space(Path::new("/")).unwrap() > 0);
    }
}
