//! Applications: what hooks belong to (wcs.md 4.1, 4.5 and section 5).
//!
//! An application has a name, a key (`appKey`, which clients connect with), the base URL of its hook server, and the
//! methods that are called there. `defaultApp` (browsers, pulled streams), `flashStreamingApp` (RTMP) and `roomApp` (pages
//! with the SDK's conference rooms) are there from the start with an empty URL, which calls nothing. Changes are on the
//! disk before they count; readers see a snapshot.

mod check;
mod method;

pub use check::Invalid;
pub use method::Method;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::name::mask;
use crate::store::{Change, Store, StoreError, Table};

/// The application of browsers that name no other, and of pulled streams.
pub const DEFAULT_APP: &str = "defaultApp";
/// The application of RTMP's publishers and players.
pub const FLASH_STREAMING_APP: &str = "flashStreamingApp";
/// The application that the SDK's conference rooms name. Source: wcs.md 3.2, 4.1.
pub const ROOM_APP: &str = "roomApp";
/// Those there are from the start, whose name is their key. They stay.
const BUILT_IN: [&str; 3] = [DEFAULT_APP, FLASH_STREAMING_APP, ROOM_APP];
/// Most applications at once.
pub const MAX_APPLICATIONS: usize = 1000;

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

/// An application. Empty texts mean "none".
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Application {
    /// What the command line calls it by.
    pub name: String,
    /// What clients connect with (`appKey`).
    pub key: String,
    /// The base of the hook server, `http://` or `https://`, without a slash at its end; empty calls nothing. May hold a
    /// password: show [`Application::shown_url`].
    pub url: String,
    /// The user of the command line it belongs to.
    pub owner: String,
    /// The user name of HTTP Basic, for hooks.
    pub rest_username: String,
    /// Its password.
    pub rest_password: Secret,
    /// A Java class of WCS (`-m`): kept and shown, without an effect.
    pub main_class: String,
    /// A Java class of WCS (`-c`): kept and shown, without an effect.
    pub callback_class: String,
    /// The methods that are called.
    #[serde(deserialize_with = "method::known")]
    pub methods: BTreeSet<Method>,
}

impl Default for Application {
    fn default() -> Self {
        Self {
            name: String::new(),
            key: String::new(),
            url: String::new(),
            owner: crate::users::ADMIN.to_owned(),
            rest_username: String::new(),
            rest_password: Secret::default(),
            main_class: String::new(),
            callback_class: String::new(),
            methods: BTreeSet::new(),
        }
    }
}

impl Application {
    /// Where a method is called: `None` where there is no hook server, or the method is not enabled.
    pub fn endpoint(&self, method: Method) -> Option<String> {
        let called = !self.url.is_empty() && self.methods.contains(&method);
        called.then(|| format!("{}/{method}", self.url))
    }

    /// The URL with its secrets masked.
    pub fn shown_url(&self) -> String {
        mask(&self.url)
    }

    /// One that every installation has: all methods but the periodic one, which the documents have people add.
    fn built_in(name: &str) -> Self {
        let methods = Method::ALL.into_iter().filter(|method| *method != Method::StreamKeepAliveEvent).collect();
        Self { name: name.to_owned(), key: name.to_owned(), methods, ..Self::default() }
    }
}

/// Masked: a URL may hold a password.
impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Application");
        shown.field("name", &self.name).field("key", &self.key).field("url", &self.shown_url());
        shown.field("owner", &self.owner).field("methods", &self.methods).finish_non_exhaustive()
    }
}

/// What is to become of an application: the fields that are given; the others stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// See [`Application::key`].
    pub key: Option<String>,
    /// See [`Application::url`]; a slash at its end is dropped.
    pub url: Option<String>,
    /// See [`Application::owner`].
    pub owner: Option<String>,
    /// See [`Application::rest_username`].
    pub rest_username: Option<String>,
    /// See [`Application::rest_password`].
    pub rest_password: Option<Secret>,
    /// See [`Application::main_class`].
    pub main_class: Option<String>,
    /// See [`Application::callback_class`].
    pub callback_class: Option<String>,
}

/// Why applications are not changed. Displays as one line for who asked.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// A value that cannot be one.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The name is in use.
    #[error("there is an application {0} already: see show apps")]
    NameTaken(String),
    /// The key is in use.
    #[error("the application {name} has the key {key} already")]
    KeyTaken {
        /// The key.
        key: String,
        /// The application that has it.
        name: String,
    },
    /// There is no application of that name.
    #[error("there is no application {0}: see show apps")]
    Unknown(String),
    /// There is no application of that key.
    #[error("there is no application with the key {0}: see show apps")]
    UnknownKey(String),
    /// It is there from the start and stays.
    #[error("{0} is built in and stays as it is named; update app -l \"\" {0} takes its URL away")]
    BuiltIn(String),
    /// There are too many.
    #[error("there are {MAX_APPLICATIONS} applications, which is the most")]
    Full,
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that writes is gone: weir's own fault.
    #[error("the change was not written: {0}")]
    Lost(String),
}

/// The applications at one moment.
#[derive(Debug, Clone, Default)]
pub struct Book {
    by_name: BTreeMap<String, Arc<Application>>,
    by_key: BTreeMap<String, Arc<Application>>,
}

impl Book {
    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Application>> {
        self.by_name.values()
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Application>> {
        self.by_name.get(name)
    }

    /// The one that clients with this `appKey` belong to.
    pub fn with_key(&self, key: &str) -> Option<&Arc<Application>> {
        self.by_key.get(key)
    }

    fn put(&mut self, application: Application) {
        self.remove(&application.name.clone());
        let application = Arc::new(application);
        self.by_key.insert(application.key.clone(), application.clone());
        self.by_name.insert(application.name.clone(), application);
    }

    fn remove(&mut self, name: &str) {
        if let Some(old) = self.by_name.remove(name) {
            self.by_key.remove(&old.key);
        }
    }

    /// A new application, checked.
    fn added(&self, application: Application) -> Result<Application, ApplicationError> {
        check::name(&application.name)?;
        if self.by_name.contains_key(&application.name) {
            return Err(ApplicationError::NameTaken(application.name));
        }
        if self.by_name.len() >= MAX_APPLICATIONS {
            return Err(ApplicationError::Full);
        }
        self.checked(application)
    }

    /// An application with some fields replaced, checked.
    fn updated(&self, name: &str, update: Update) -> Result<Application, ApplicationError> {
        let old = self.by_name.get(name).ok_or_else(|| ApplicationError::Unknown(name.to_owned()))?;
        let mut new = Application::clone(old);
        let built_in = BUILT_IN.contains(&name);
        if built_in && update.key.as_ref().is_some_and(|key| *key != old.key) {
            return Err(ApplicationError::BuiltIn(name.to_owned()));
        }
        set(&mut new.key, update.key);
        set(&mut new.url, update.url);
        set(&mut new.owner, update.owner);
        set(&mut new.rest_username, update.rest_username);
        set(&mut new.rest_password, update.rest_password);
        set(&mut new.main_class, update.main_class);
        set(&mut new.callback_class, update.callback_class);
        self.checked(new)
    }

    fn checked(&self, mut application: Application) -> Result<Application, ApplicationError> {
        check::key(&application.key)?;
        application.url = check::url(&application.url)?;
        check::texts(&application)?;
        match self.by_key.get(&application.key) {
            Some(other) if other.name != application.name => {
                Err(ApplicationError::KeyTaken { key: application.key, name: other.name.clone() })
            }
            _ => Ok(application),
        }
    }

    fn without(&self, name: &str) -> Result<(), ApplicationError> {
        if BUILT_IN.contains(&name) {
            return Err(ApplicationError::BuiltIn(name.to_owned()));
        }
        self.by_name.get(name).map(|_| ()).ok_or_else(|| ApplicationError::Unknown(name.to_owned()))
    }

    /// The application of a key with other methods, and how many of them changed.
    fn with_methods(
        &self,
        key: &str,
        methods: &[Method],
        enabled: bool,
    ) -> Result<(Application, usize), ApplicationError> {
        let old = self.by_key.get(key).ok_or_else(|| ApplicationError::UnknownKey(key.to_owned()))?;
        let mut new = Application::clone(old);
        let changes = methods.iter().filter(|&method| match enabled {
            true => new.methods.insert(*method),
            false => new.methods.remove(method),
        });
        let changed = changes.count();
        Ok((new, changed))
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// The applications. Copies share them.
#[derive(Clone)]
pub struct Applications(Arc<Shared>);

struct Shared {
    now: ArcSwap<Book>,
    table: Table<Application>,
    changing: Mutex<()>,
}

impl Applications {
    /// Reads the applications, and adds those that every installation has.
    ///
    /// # Errors
    /// The database's.
    pub async fn open(store: &Store) -> Result<Self, ApplicationError> {
        let table = store.table("applications");
        let reading = table.clone();
        let kept = tokio::task::spawn_blocking(move || reading.all()).await;
        let kept = kept.map_err(|error| ApplicationError::Lost(error.to_string()))??;
        let mut book = Book::default();
        kept.into_values().for_each(|application| book.put(application));
        for name in BUILT_IN {
            // An operator may have added one of that key before weir had it.
            if !book.by_name.contains_key(name) && !book.by_key.contains_key(name) {
                book.put(Application::built_in(name));
            }
        }
        Ok(Self(Arc::new(Shared { now: ArcSwap::from_pointee(book), table, changing: Mutex::new(()) })))
    }

    /// What there is now. Costs next to nothing; a later change does not show in it.
    pub fn book(&self) -> Arc<Book> {
        self.0.now.load_full()
    }

    /// The application that clients with this `appKey` belong to.
    pub fn with_key(&self, key: &str) -> Option<Arc<Application>> {
        self.0.now.load().with_key(key).cloned()
    }

    /// Adds an application.
    ///
    /// # Errors
    /// A value that cannot be one, a name or key in use, the disk.
    pub async fn add(&self, application: Application) -> Result<(), ApplicationError> {
        self.put(|book| Ok((book.added(application)?, ()))).await
    }

    /// Replaces some fields of the application `name`.
    ///
    /// # Errors
    /// An unknown name, a value that cannot be one, a key in use, the disk.
    pub async fn update(&self, name: &str, update: Update) -> Result<(), ApplicationError> {
        self.put(|book| Ok((book.updated(name, update)?, ()))).await
    }

    /// Enables methods of the application with this key; says how many were not enabled before.
    ///
    /// # Errors
    /// An unknown key, the disk.
    pub async fn enable(&self, key: &str, methods: &[Method]) -> Result<usize, ApplicationError> {
        self.put(|book| book.with_methods(key, methods, true)).await
    }

    /// Disables methods of the application with this key; says how many were enabled before.
    ///
    /// # Errors
    /// An unknown key, the disk.
    pub async fn disable(&self, key: &str, methods: &[Method]) -> Result<usize, ApplicationError> {
        self.put(|book| book.with_methods(key, methods, false)).await
    }

    /// Takes an application away. Sessions that belong to it go on without hooks.
    ///
    /// # Errors
    /// An unknown name, one that is built in, the disk.
    pub async fn remove(&self, name: &str) -> Result<(), ApplicationError> {
        let _alone = self.0.changing.lock().await;
        let mut book = Book::clone(&self.0.now.load());
        book.without(name)?;
        self.keep(Change::Remove(name.to_owned())).await?;
        book.remove(name);
        self.0.now.store(Arc::new(book));
        Ok(())
    }

    /// Decides on what is there now what one application becomes, keeps that, then shows it.
    async fn put<T>(
        &self,
        decide: impl FnOnce(&Book) -> Result<(Application, T), ApplicationError>,
    ) -> Result<T, ApplicationError> {
        let _alone = self.0.changing.lock().await;
        let mut book = Book::clone(&self.0.now.load());
        let (application, answer) = decide(&book)?;
        self.keep(Change::Put(application.name.clone(), application.clone())).await?;
        book.put(application);
        self.0.now.store(Arc::new(book));
        Ok(answer)
    }

    async fn keep(&self, change: Change<Application>) -> Result<(), ApplicationError> {
        let table = self.0.table.clone();
        let written = tokio::task::spawn_blocking(move || table.write([change])).await;
        Ok(written.map_err(|error| ApplicationError::Lost(error.to_string()))??)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
