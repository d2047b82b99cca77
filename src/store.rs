//! What must survive a restart: one small embedded database, `weir.redb` under the data directory.
//!
//! It holds tables of texts to values, the values as JSON, so that a later weir reads what an earlier one wrote. Each
//! write is one transaction on the disk when the call returns: a crash at any moment leaves the state before it or
//! after it. The calls block for as long as the disk takes; tasks make them through `spawn_blocking`.
//!
//! The open file is locked, which also keeps a second weir from the same data directory.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The database's file under the data directory.
pub const FILE: &str = "weir.redb";
/// Memory for the database's pages. All of it together is some kilobytes in most installations.
const CACHE_BYTES: usize = 8 << 20;
/// Secrets are in it: for the owner alone.
const MODE: u32 = 0o600;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("another weir uses this data directory ({} is locked): end it, or give this one another --data", .0.display())]
    InUse(PathBuf),
    /// It is no database, or one that was damaged.
    #[error(
        "{} is damaged ({reason}): put back a copy, or move it away and weir starts with an empty one", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The system refuses.
    #[error("cannot use {}: {reason}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// The open database; copies share it. The file is free again once the last copy and its tables are dropped.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    path: Arc<Path>,
}

impl Store {
    /// Opens the database under `data`, which is there already; makes an empty one where there is none. Reads all of it
    /// to see that it is whole.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let path = data.join(FILE);
        let file = own_file(&path).map_err(|error| io_error(&path, &error))?;
        // The library asserts some of what it reads; a damaged file must not take weir down without a word.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut database = redb::Builder::new().set_cache_size(CACHE_BYTES).create_file(file)?;
            database.check_integrity().map(|_| database)
        }));
        let database = match opened {
            Ok(opened) => opened.map_err(|error| database_error(&path, error))?,
            Err(_) => return Err(StoreError::Damaged { path, reason: "it makes no sense as a database".to_owned() }),
        };
        Ok(Self { database: Arc::new(database), path: path.into() })
    }

    /// A table by its name; it need not exist yet.
    pub fn table<V>(&self, name: &'static str) -> Table<V> {
        Table { store: self.clone(), definition: TableDefinition::new(name), values: PhantomData }
    }

    /// The data directory, which this process has for itself.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn broken(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(error) => io_error(&self.path, &error),
            other => StoreError::Damaged { path: self.path.to_path_buf(), reason: other.to_string() },
        }
    }
}

/// What a write does to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<V> {
    /// Puts a value there, in place of any.
    Put(String, V),
    /// Takes the value away, where there is one.
    Remove(String),
}

/// One table of a [`Store`]: texts to values, in the order of the texts' bytes.
pub struct Table<V> {
    store: Store,
    definition: TableDefinition<'static, &'static str, &'static [u8]>,
    values: PhantomData<fn() -> V>,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), definition: self.definition, values: PhantomData }
    }
}

impl<V: Serialize + DeserializeOwned> Table<V> {
    /// Everything in it; nothing where it was never written.
    ///
    /// # Errors
    /// The disk's, and a value that is none ([`StoreError::Damaged`]).
    pub fn all(&self) -> Result<BTreeMap<String, V>, StoreError> {
        let texts = self.read().map_err(|error| self.store.broken(error))?;
        let values = texts.into_iter().map(|(key, json)| match serde_json::from_slice(&json) {
            Ok(value) => Ok((key, value)),
            // The error's own text may quote the value, which may be a secret.
            Err(_) => Err(StoreError::Damaged {
                path: self.store.path.to_path_buf(),
                reason: format!("{:?} in the table {} is not what weir writes there", key, self.name()),
            }),
        });
        values.collect()
    }

    /// Makes all of these changes, in their order, or none of them.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, changes: impl IntoIterator<Item = Change<V>>) -> Result<(), StoreError> {
        let encoded = changes.into_iter().map(|change| match change {
            Change::Put(key, value) => match serde_json::to_vec(&value) {
                Ok(json) => Ok((key, Some(json))),
                Err(error) => Err(io_error(&self.store.path, &io::Error::other(error))),
            },
            Change::Remove(key) => Ok((key, None)),
        });
        let encoded: Vec<_> = encoded.collect::<Result<_, _>>()?;
        self.commit(&encoded).map_err(|error| self.store.broken(error))
    }

    fn name(&self) -> &str {
        redb::TableHandle::name(&self.definition)
    }

    fn read(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let reading = self.store.database.begin_read()?;
        let table = match reading.open_table(self.definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let rows = table.iter()?.map(|row| row.map(|(key, json)| (key.value().to_owned(), json.value().to_owned())));
        Ok(rows.collect::<Result<_, StorageError>>()?)
    }

    fn commit(&self, changes: &[(String, Option<Vec<u8>>)]) -> Result<(), redb::Error> {
        let writing = self.store.database.begin_write()?;
        {
            let mut table = writing.open_table(self.definition)?;
            for (key, json) in changes {
                match json {
                    Some(json) => drop(table.insert(key.as_str(), json.as_slice())?),
                    None => drop(table.remove(key.as_str())?),
                }
            }
        }
        Ok(writing.commit()?)
    }
}

/// The file, for the owner alone, also where a copy was put back with other rights.
fn own_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { path: path.to_path_buf(), reason: error.to_string() }
}

fn database_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_path_buf()),
        // What a file that is no database, or a cut one, is told as.
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            io_error(path, &error)
        }
        other => StoreError::Damaged { path: path.to_path_buf(), reason: other.to_string() },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(key: &str, value: u32) -> Change<u32> {
        Change::Put(key.to_owned(), value)
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        let table = store.table::<u32>("numbers");
        assert!(table.all().unwrap().is_empty());
        table.write([put("b", 2), put("a", 1), put("c", 3), Change::Remove("c".into())]).unwrap();
        table.write([Change::Remove("none".into())]).unwrap();
        store.table::<String>("texts").write([Change::Put("a".into(), "x".to_owned())]).unwrap();
        drop((store, table));
        let store = Store::open(data.path()).unwrap();
        let all: Vec<_> = store.table::<u32>("numbers").all().unwrap().into_iter().collect();
        assert_eq!(all, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(store.table::<String>("texts").all().unwrap()["a"], "x");
    }

    #[test]
    fn the_file_is_for_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(FILE);
        for _ in 0..2 {
            drop(Store::open(data.path()).unwrap());
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
    }

    #[test]
    fn a_second_one_is_told_of_the_first() {
        let data = tempfile::tempdir().unwrap();
        let first = Store::open(data.path()).unwrap();
        let refused = Store::open(data.path()).err().unwrap();
        assert!(matches!(refused, StoreError::InUse(_)), "{refused}");
        assert!(refused.to_string().starts_with("another weir uses this data directory"), "{refused}");
        drop(first);
        Store::open(data.path()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_as_one() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(FILE);
        {
            let store = Store::open(data.path()).unwrap();
            store.table::<u32>("numbers").write((0..500).map(|n| put(&n.to_string(), n))).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        let mut zeroed = whole.clone();
        zeroed[4096..].fill(0);
        let cases: [(&str, &[u8]); 5] = [
            ("text", b"this is no database\n"),
            ("long text", &b"x".repeat(100_000)),
            ("cut", &whole[..whole.len() / 2]),
            ("cut in the header", &whole[..100]),
            ("zeroed", &zeroed),
        ];
        for (name, bytes) in cases {
            std::fs::write(&path, bytes).unwrap();
            let refused = Store::open(data.path()).err().unwrap_or_else(|| panic!("{name} is taken"));
            assert!(matches!(refused, StoreError::Damaged { .. }), "{name}: {refused}");
            assert!(refused.to_string().contains("weir.redb is damaged"), "{name}: {refused}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Store::open(data.path()).unwrap().table::<u32>("numbers").all().unwrap().len(), 500);
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named() {
        let data = tempfile::tempdir().unwrap();
        let refused = Store::open(&data.path().join("none")).err().unwrap();
        assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
        std::fs::create_dir(data.path().join(FILE)).unwrap();
        let refused = Store::open(data.path()).err().unwrap();
        assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
    }

    #[test]
    fn a_value_of_another_kind_is_refused_without_showing_it() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        store.table::<String>("t").write([Change::Put("a".into(), "hunter2".to_owned())]).unwrap();
        let refused = store.table::<u32>("t").all().unwrap_err().to_string();
        assert!(refused.contains("\"a\" in the table t") && !refused.contains("hunter2"), "{refused}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Whatever a disk makes of the file: an answer, and no end of the process.
        #[test]
        fn no_damage_panics(at in 0usize..100_000, len in 1usize..9000, fill in any::<u8>()) {
            let data = tempfile::tempdir().unwrap();
            let path = data.path().join(FILE);
            Store::open(data.path()).unwrap().table::<u32>("n").write((0..200).map(|n| put(&n.to_string(), n))).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at % bytes.len();
            let end = (at + len).min(bytes.len());
            bytes[at..end].fill(fill);
            std::fs::write(&path, bytes).unwrap();
            if let Ok(store) = Store::open(data.path()) {
                let _ = store.table::<u32>("n").all();
            }
        }
    }
}
