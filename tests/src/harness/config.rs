//! What a sidecar is started with: a temporary root, directories below it and the settings of its `config.toml`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Builds a `config.toml`; the folders live as long as this.
#[derive(Debug)]
pub struct Setup {
    root: TempDir,
    urls: Vec<String>,
    settings: Vec<String>,
    tables: Vec<String>,
    /// The part of `[storage]` before `[storage.wal_config]`.
    storage: Vec<String>,
    admin: String,
    /// Environment of the process.
    pub environment: Vec<(String, String)>,
}

impl Setup {
    /// A writer with `directories` folders `d1`, `d2`, … below a new temporary root.
    #[must_use]
    pub fn new(directories: usize) -> Self {
        Self::below(&std::env::temp_dir(), directories)
    }

    /// Like [`Self::new`], below a memory file system where there is one: for tests with thousands of starts.
    #[must_use]
    pub fn in_memory(directories: usize) -> Self {
        let memory = Path::new("/dev/shm");
        let writable = rustix::fs::access(memory, rustix::fs::Access::WRITE_OK).is_ok();
        Self::below(if writable { memory } else { Path::new("/tmp") }, directories)
    }

    /// Like [`Self::new`], below `parent`.
    #[must_use]
    pub fn below(parent: &Path, directories: usize) -> Self {
        let root = tempfile::Builder::new().prefix("wal-").tempdir_in(parent).expect("a temporary folder");
        let urls = (1..=directories).map(|n| format!("file://{}/d{n}", root.path().display())).collect();
        Self {
            root,
            urls,
            settings: Vec::new(),
            tables: Vec::new(),
            storage: Vec::new(),
            admin: "off".into(),
            environment: Vec::new(),
        }
    }

    /// Adds a line to `[storage.wal_config]`.
    #[must_use]
    pub fn set(mut self, line: &str) -> Self {
        self.add(line);
        self
    }

    /// Like [`Self::set`], between two starts: replaces a line with the same key.
    pub fn add(&mut self, line: &str) {
        self.unset(line.split('=').next().unwrap_or_default().trim());
        self.settings.push(line.into());
    }

    /// Takes a line out of `[storage.wal_config]`.
    pub fn unset(&mut self, key: &str) {
        self.settings.retain(|known| known.split('=').next().unwrap_or_default().trim() != key);
    }

    /// Adds a table after `[storage.wal_config]`.
    pub fn table(&mut self, text: &str) {
        self.tables.push(text.into());
    }

    /// Adds a line to `[storage]`.
    pub fn storage(&mut self, line: &str) {
        self.storage.push(line.into());
    }

    /// Sets the admin address; without this it is off.
    #[must_use]
    pub fn admin(mut self, address: &str) -> Self {
        self.admin = address.into();
        self
    }

    /// Replaces the list of URLs.
    pub fn urls(&mut self, urls: &[String]) {
        self.urls = urls.to_vec();
    }

    /// The URL of the folder `name` below the root.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    /// The folder `name` below the root.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The root of everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The journal's folder of directory `n`, from 1.
    #[must_use]
    pub fn journal(&self, n: usize) -> PathBuf {
        self.path(&format!("d{n}")).join("_wal/journal")
    }

    /// Puts a file where directory 1 would have the folder of a collection.
    pub fn block_own_path(&self, collection: &str) {
        std::fs::write(self.path("d1").join(collection), b"").expect("a file in the way");
    }

    /// Puts files where directory 1 would have the folders of a collection and of shared segments: nothing of the
    /// collection can be flushed.
    pub fn block_segments(&self, collection: &str) {
        self.block_own_path(collection);
        std::fs::write(self.path("d1").join("_wal/shared"), b"").expect("a file in the way");
    }

    /// Where the socket is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("s")
    }

    /// The text of `config.toml`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from("[storage]\n");
        self.storage.iter().for_each(|line| writeln!(text, "{line}").expect("a string grows"));
        let urls: Vec<_> = self.urls.iter().map(|url| format!("{url:?}")).collect();
        write!(text, "[storage.wal_config]\nwal_urls = [{}]\n", urls.join(", ")).expect("a string grows");
        self.settings.iter().for_each(|line| writeln!(text, "{line}").expect("a string grows"));
        self.tables.iter().for_each(|table| writeln!(text, "{table}").expect("a string grows"));
        let socket = self.socket();
        write!(text, "[sidecar]\nsocket = {:?}\nadmin_address = {:?}\n", socket.display().to_string(), self.admin)
            .expect("a string grows");
        text
    }

    /// Writes `config.toml` and answers its path.
    #[must_use]
    pub fn write(&self) -> PathBuf {
        let path = self.path("config.toml");
        std::fs::write(&path, self.text()).expect("config.toml is written");
        path
    }
}
