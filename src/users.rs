//! The people who may control weir: the users of the command line, who are those of REST too (wcs.md section 5).
//!
//! A user has a name, a password and a role. Passwords are kept as argon2id hashes and are never shown. Changes are on
//! the disk before they count; readers see a snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, PoisonError};

use arc_swap::ArcSwap;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use blake2::Blake2sMac256;
use blake2::digest::{CtOutput, KeyInit, Mac};
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};

use crate::store::{Change, Store, StoreError, Table};

/// The user there is from the start.
pub const ADMIN: &str = "admin";
/// The longest name, in bytes.
pub const MAX_NAME: usize = 64;
/// The longest password, in bytes. Longer ones would only cost time to hash.
pub const MAX_PASSWORD: usize = 256;
/// How many passwords are hashed at a time: each takes a core for some 20 ms and 19 MiB.
const HASHES: usize = 2;
/// What first passwords are made of: nothing that is mistaken for something else. 20 of 31 are 99 bits.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
const FIRST_PASSWORD: usize = 20;

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything: all applications, the users.
    Admin,
    /// Everything but the users and the applications of others.
    User,
}

impl FromStr for Role {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        match text.to_ascii_lowercase().as_str() {
            "admin" => Ok(Self::Admin),
            "user" => Ok(Self::User),
            _ => Err(UserError::Role),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::User => "user",
        })
    }
}

/// A user as others may see one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// The name they log in with.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// Why users are not changed. Displays as one line for who asked.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The name cannot be one.
    #[error("expected a user name of letters, digits and . _ - that does not begin with -, at most {MAX_NAME}")]
    Name,
    /// The password cannot be one.
    #[error("expected a password without control characters, 1 to {MAX_PASSWORD} bytes")]
    Password,
    /// There is no such role.
    #[error("expected a role: admin or user")]
    Role,
    /// The name is in use.
    #[error("there is a user {0} already")]
    Taken(String),
    /// There is no user of that name.
    #[error("there is no user {0}: see show users")]
    Unknown(String),
    /// Nobody could do anything any more.
    #[error("{0} is the last user with the role admin and stays")]
    LastAdmin(String),
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Hashing failed: weir's own fault.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// A password of a new installation, for one line in the log.
pub struct FirstPassword(pub String);

#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    role: Role,
    /// In the PHC string format: `$argon2id$v=19$m=…`.
    hash: String,
}

type Book = BTreeMap<String, Kept>;

/// The users. Copies share them.
#[derive(Clone)]
pub struct Users(Arc<Shared>);

struct Shared {
    now: ArcSwap<Book>,
    table: Table<Kept>,
    changing: Mutex<()>,
    hashing: Arc<Semaphore>,
    /// The last password of each user that was right, so that a program that logs in with every call costs one slow
    /// hash and not thousands.
    known: std::sync::Mutex<BTreeMap<String, Known>>,
    /// What keeps [`Known::tag`] from being tried out: a key of chance that no other process has.
    key: [u8; 32],
}

/// A password that was right.
struct Known {
    tag: CtOutput<Blake2sMac256>,
    /// The slow hash it fitted; another password has another.
    hash: String,
}

impl Users {
    /// Reads the users. Where there is none, makes [`ADMIN`] with a password of chance, which is returned: nothing but
    /// its hash is kept.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(store: &Store) -> Result<(Self, Option<FirstPassword>), UserError> {
        let table = store.table("users");
        let reading = table.clone();
        let book: Book = blocking(move || reading.all()).await?;
        let empty = book.is_empty();
        let shared = Shared {
            now: ArcSwap::from_pointee(book),
            table,
            changing: Mutex::new(()),
            hashing: Arc::new(Semaphore::new(HASHES)),
            known: std::sync::Mutex::default(),
            key: rand::random(),
        };
        let users = Self(Arc::new(shared));
        if !empty {
            return Ok((users, None));
        }
        let password = random_password();
        users.add(ADMIN, &password, Role::Admin).await?;
        Ok((users, Some(FirstPassword(password))))
    }

    /// All users, by name.
    pub fn all(&self) -> Vec<User> {
        let book = self.0.now.load();
        book.iter().map(|(name, kept)| User { name: name.clone(), role: kept.role }).collect()
    }

    /// One user.
    pub fn find(&self, name: &str) -> Option<User> {
        self.0.now.load().get(name).map(|kept| User { name: name.to_owned(), role: kept.role })
    }

    /// The user whose name and password these are. Takes as long for a name that does not exist.
    pub async fn check(&self, name: &str, password: &str) -> Option<User> {
        if password.len() > MAX_PASSWORD {
            return None;
        }
        let kept = self.0.now.load().get(name).cloned();
        let hash = kept.as_ref().map_or_else(|| NOBODY.clone(), |kept| kept.hash.clone());
        let given = password.to_owned();
        let fits = self.hashing(move || fits(&hash, &given)).await.unwrap_or(false);
        let kept = kept.filter(|_| fits)?;
        if let Some(tag) = self.tag(password) {
            let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(name.to_owned(), Known { tag, hash: kept.hash });
        }
        Some(User { name: name.to_owned(), role: kept.role })
    }

    /// Whether [`Users::check`] has found just these right before, and the password is still the user's.
    pub fn is_known(&self, name: &str, password: &str) -> bool {
        let book = self.0.now.load();
        let Some(kept) = book.get(name).filter(|_| password.len() <= MAX_PASSWORD) else { return false };
        let Some(tag) = self.tag(password) else { return false };
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).is_some_and(|known| known.hash == kept.hash && known.tag == tag)
    }

    fn tag(&self, password: &str) -> Option<CtOutput<Blake2sMac256>> {
        let mac = Blake2sMac256::new_from_slice(&self.0.key).ok()?;
        Some(mac.chain_update(password).finalize())
    }

    /// Adds a user.
    ///
    /// # Errors
    /// A name or password that cannot be one, a name in use, the disk.
    pub async fn add(&self, name: &str, password: &str, role: Role) -> Result<(), UserError> {
        check_name(name)?;
        let hash = self.hash(password).await?;
        self.change(name, |book| match book.contains_key(name) {
            true => Err(UserError::Taken(name.to_owned())),
            false => Ok(Some(Kept { role, hash })),
        })
        .await
    }

    /// Gives a user another password.
    ///
    /// # Errors
    /// A password that cannot be one, an unknown user, the disk.
    pub async fn set_password(&self, name: &str, password: &str) -> Result<(), UserError> {
        let unknown = || UserError::Unknown(name.to_owned());
        self.find(name).ok_or_else(unknown)?;
        let hash = self.hash(password).await?;
        self.change(name, |book| {
            let kept = book.get(name).ok_or_else(unknown)?;
            Ok(Some(Kept { role: kept.role, hash }))
        })
        .await
    }

    /// Takes a user away.
    ///
    /// # Errors
    /// An unknown user, the last admin, the disk.
    pub async fn remove(&self, name: &str) -> Result<(), UserError> {
        self.change(name, |book| {
            let kept = book.get(name).ok_or_else(|| UserError::Unknown(name.to_owned()))?;
            let admins = book.values().filter(|kept| kept.role == Role::Admin).count();
            match kept.role == Role::Admin && admins == 1 {
                true => Err(UserError::LastAdmin(name.to_owned())),
                false => Ok(None),
            }
        })
        .await
    }

    /// Decides on what is there now what becomes of one user, keeps that, then shows it.
    async fn change(
        &self,
        name: &str,
        decide: impl FnOnce(&Book) -> Result<Option<Kept>, UserError>,
    ) -> Result<(), UserError> {
        let _alone = self.0.changing.lock().await;
        let mut book = Book::clone(&self.0.now.load());
        let change = match decide(&book)? {
            Some(kept) => {
                book.insert(name.to_owned(), kept.clone());
                Change::Put(name.to_owned(), kept)
            }
            None => {
                book.remove(name);
                Change::Remove(name.to_owned())
            }
        };
        let table = self.0.table.clone();
        blocking(move || table.write([change])).await?;
        self.0.now.store(Arc::new(book));
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }

    async fn hash(&self, password: &str) -> Result<String, UserError> {
        check_password(password)?;
        let password = password.to_owned();
        self.hashing(move || hash(&password)).await?.map_err(UserError::Hash)
    }

    /// Runs a hash on a thread of its own, a few at a time.
    async fn hashing<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, UserError> {
        let lost = |error: String| UserError::Hash(error);
        let place = self.0.hashing.clone().acquire_owned().await.map_err(|error| lost(error.to_string()))?;
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            job()
        });
        done.await.map_err(|error| lost(error.to_string()))
    }
}

/// Waits for the disk on a thread of its own.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, UserError> {
    let done = tokio::task::spawn_blocking(job).await.map_err(|error| UserError::Hash(error.to_string()))?;
    Ok(done?)
}

/// A hash that no password fits.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash(&random_password()).unwrap_or_default());

fn hash(password: &str) -> Result<String, String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

fn fits(hash: &str, password: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

fn random_password() -> String {
    let mut random = rand::rng();
    (0..FIRST_PASSWORD).filter_map(|_| ALPHABET.choose(&mut random)).map(|&byte| char::from(byte)).collect()
}

fn check_name(name: &str) -> Result<(), UserError> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let allowed = (1..=MAX_NAME).contains(&name.len()) && name.chars().all(good) && !name.starts_with('-');
    if allowed { Ok(()) } else { Err(UserError::Name) }
}

fn check_password(password: &str) -> Result<(), UserError> {
    let allowed = (1..=MAX_PASSWORD).contains(&password.len()) && !password.chars().any(char::is_control);
    if allowed { Ok(()) } else { Err(UserError::Password) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords() {
        let long = "x".repeat(MAX_NAME + 1);
        for (name, good) in [
            ("admin", true),
            ("a.b_c-9", true),
            (&long[1..], true),
            (&long, false),
            ("", false),
            ("-a", false),
            ("a b", false),
            ("ä", false),
            ("a/b", false),
            ("a\n", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        }
        let long = "x".repeat(MAX_PASSWORD + 1);
        for (password, good) in
            [("x", true), ("päss wörd", true), (&long[1..], true), (&long, false), ("", false), ("a\tb", false)]
        {
            assert_eq!(check_password(password).is_ok(), good, "{password:?}");
        }
        assert_eq!(random_password().len(), FIRST_PASSWORD);
        assert_ne!(random_password(), random_password());
    }

    #[tokio::test]
    async fn the_first_start_makes_an_admin_and_a_restart_keeps_the_users() {
        let data = tempfile::tempdir().unwrap();
        let first = {
            let store = Store::open(data.path()).unwrap();
            let (users, first) = Users::open(&store).await.unwrap();
            let first = first.unwrap().0;
            assert_eq!(users.check(ADMIN, &first).await.unwrap().role, Role::Admin);
            users.add("bob", "hunter2", Role::User).await.unwrap();
            users.add("eve", "x", Role::Admin).await.unwrap();
            users.set_password("eve", "y").await.unwrap();
            first
        };
        let bytes = std::fs::read(data.path().join(crate::store::FILE)).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "a password is in the file");
        let store = Store::open(data.path()).unwrap();
        let (users, again) = Users::open(&store).await.unwrap();
        assert!(again.is_none(), "a first password is made once");
        assert_eq!(users.all().iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["admin", "bob", "eve"]);
        for (name, password, good) in [
            (ADMIN, first.as_str(), true),
            (ADMIN, "", false),
            (ADMIN, "admin", false),
            ("bob", "hunter2", true),
            ("bob", "hunter3", false),
            ("eve", "x", false),
            ("eve", "y", true),
            ("nobody", "hunter2", false),
        ] {
            assert_eq!(users.check(name, password).await.is_some(), good, "{name}");
        }
    }

    #[tokio::test]
    async fn what_was_right_before_is_known_until_it_is_wrong() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        let (users, _) = Users::open(&store).await.unwrap();
        users.add("bob", "one", Role::User).await.unwrap();
        assert!(!users.is_known("bob", "one"), "nobody has looked");
        assert!(users.check("bob", "two").await.is_none());
        assert!(!users.is_known("bob", "two") && !users.is_known("bob", "one"));
        assert!(users.check("bob", "one").await.is_some());
        assert!(users.is_known("bob", "one"));
        assert!(!users.is_known("bob", "two") && !users.is_known(ADMIN, "one") && !users.is_known("nobody", "one"));
        users.set_password("bob", "two").await.unwrap();
        assert!(!users.is_known("bob", "one"));
        assert!(users.check("bob", "two").await.is_some() && users.is_known("bob", "two"));
        users.remove("bob").await.unwrap();
        assert!(!users.is_known("bob", "two"));
    }

    #[tokio::test]
    async fn what_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        let (users, _) = Users::open(&store).await.unwrap();
        let said = |result: Result<(), UserError>| result.unwrap_err().to_string();
        assert_eq!(said(users.add(ADMIN, "x", Role::User).await), "there is a user admin already");
        assert_eq!(said(users.remove("bob").await), "there is no user bob: see show users");
        assert_eq!(said(users.set_password("bob", "x").await), "there is no user bob: see show users");
        assert_eq!(said(users.remove(ADMIN).await), "admin is the last user with the role admin and stays");
        assert!(said(users.set_password(ADMIN, "").await).starts_with("expected a password"));
        assert_eq!(users.all().len(), 1);
        users.add("eve", "x", Role::Admin).await.unwrap();
        users.remove(ADMIN).await.unwrap();
        assert_eq!(users.all(), [User { name: "eve".into(), role: Role::Admin }]);
    }
}
