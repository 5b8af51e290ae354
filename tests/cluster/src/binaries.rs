//! Finds the programs of this workspace beside the running one, after having cargo bring them up to date.

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
        let me = std::env::current_exe().expect("the path of this program");
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
        .args(["-p", "walstorage-sidecar", "-p", "walstorage-operator", "-p", "walstorage-cluster-tests"])
        .arg("--manifest-path")
        .arg(repository().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.parent().expect("the target folder"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "cargo could not build the programs under test");
}

/// A program of this workspace by its name.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    folder().join(name)
}

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().and_then(Path::parent).expect("this crate is in a folder of the repository").to_path_buf()
}

/// The folder below which every cluster has one of its own.
#[must_use]
pub fn clusters() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    std::path::absolute(target).expect("the current folder").join("cluster")
}
