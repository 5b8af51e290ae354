//! Finds the programs under test beside the running test, after having cargo bring them up to date.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the programs are: `WALSTORAGE_BIN_DIR`, else the folder of this build's profile.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("WALSTORAGE_BIN_DIR") {
            return folder.into();
        }
        let me = std::env::current_exe().expect("the path of this test");
        let mut folder = me.parent().expect("a folder").to_path_buf();
        if folder.ends_with("deps") || folder.ends_with("examples") {
            folder.pop();
        }
        build(&folder);
        folder
    })
}

/// A test builds only the library it links; the programs could be of an older build.
fn build(folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--profile", profile, "--bins"])
        .args(["-p", "walstorage-sidecar", "-p", "walstorage-operator"])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.parent().expect("the target folder"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "cargo could not build the programs under test");
}

/// The sidecar.
#[must_use]
pub fn sidecar() -> PathBuf {
    folder().join("walstorage-sidecar")
}

/// The command-line tool.
#[must_use]
pub fn walctl() -> PathBuf {
    folder().join("walctl")
}

/// The operator, whose `render` needs no cluster.
#[must_use]
pub fn operator() -> PathBuf {
    folder().join("walstorage-operator")
}

/// The root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
