//! Writes container images without a registry or a builder: an archive in the format that `docker save` writes, which
//! every container runtime imports.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The user that images run as.
pub const USER: u32 = 65532;

/// An image of programs of this machine, with the libraries that they load and nothing else.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// Its names, with a registry part, which else would be made up.
    pub references: &'a [&'a str],
    /// What a container runs.
    pub entrypoint: &'a [&'a str],
    /// What it is given where the pod says nothing.
    pub arguments: &'a [&'a str],
    /// Programs of this machine, and where the image has them.
    pub programs: &'a [(PathBuf, &'a str)],
}

/// Writes the archive. The same programs give the same bytes.
///
/// # Errors
/// When a program cannot be read, or the archive not be written.
pub fn write(image: &Image<'_>, archive: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut layer = Layer::new();
    layer.folder("tmp", 0o1777)?;
    let passwd = format!("root:x:0:0:root:/:/\nnonroot:x:{USER}:{USER}:nonroot:/:/\n");
    layer.file("etc/passwd", passwd.as_bytes(), 0o644)?;
    layer.file("etc/group", format!("root:x:0:\nnonroot:x:{USER}:\n").as_bytes(), 0o644)?;
    layer.file("etc/nsswitch.conf", b"hosts: files dns\n", 0o644)?;
    let mut libraries = BTreeSet::new();
    for (program, target) in image.programs {
        layer.file(target.trim_start_matches('/'), &stripped(program, scratch.path())?, 0o755)?;
        libraries.extend(libraries_of(program)?);
    }
    for library in libraries {
        let bytes = fs::read(&library).with_context(|| format!("cannot read {library}"))?;
        layer.file(library.trim_start_matches('/'), &bytes, 0o755)?;
    }
    let layer = layer.0.into_inner()?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.arguments,
            "User": format!("{USER}:{USER}"),
            "Env": ["PATH=/:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
        "history": [{"created_by": "walstorage-cluster"}],
    })
    .to_string()
    .into_bytes();
    let config_name = format!("{}.json", hex(&config));
    let manifest = json!([{"Config": config_name, "RepoTags": image.references, "Layers": ["layer.tar"]}]);

    let mut outer = Layer(Builder::new(Vec::new()));
    outer.file(&config_name, &config, 0o644)?;
    outer.file("layer.tar", &layer, 0o644)?;
    outer.file("manifest.json", manifest.to_string().as_bytes(), 0o644)?;
    let bytes = outer.0.into_inner()?;
    // Whoever reads it meanwhile reads all of the old one.
    let folder = archive.parent().context("the archive is in a folder")?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&bytes)?;
    file.persist(archive)?;
    Ok(())
}

/// A program without what only a debugger reads, which is most of it; as it is where there is no `strip`.
fn stripped(program: &Path, scratch: &Path) -> Result<Vec<u8>> {
    let small = scratch.join("stripped");
    let done = Command::new("strip").arg("--strip-debug").arg("-o").arg(&small).arg(program).status();
    let source = if done.is_ok_and(|status| status.success()) { small.as_path() } else { program };
    fs::read(source).with_context(|| format!("cannot read {}", program.display()))
}

/// The files that the loader maps for a program, the loader included.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    // A static program has none, which ldd reports as a failure.
    Ok(paths(&String::from_utf8_lossy(&output.stdout)))
}

fn paths(ldd: &str) -> Vec<String> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(|path| path.trim_end_matches(':').to_owned())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.append(&format!("{path}/"), EntryType::Directory, &[], mode)
    }

    fn file(&mut self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.append(path, EntryType::Regular, bytes, mode)
    }

    fn append(&mut self, path: &str, kind: EntryType, bytes: &[u8], mode: u32) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        Ok(self.0.append_data(&mut header, path, bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_programs_and_what_they_load_and_the_same_input_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image {
            references: &["localhost/sh:1"],
            entrypoint: &["/usr/bin/sh"],
            arguments: &[],
            programs: &[(fs::canonicalize("/bin/sh").unwrap(), "/usr/bin/sh")],
        };
        let [first, second] = ["1.tar", "2.tar"].map(|name| folder.path().join(name));
        write(&image, &first).unwrap();
        write(&image, &second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());

        let mut outer = tar::Archive::new(fs::File::open(&first).unwrap());
        let mut names = Vec::new();
        for entry in outer.entries().unwrap() {
            let entry = entry.unwrap();
            if entry.path().unwrap().ends_with("layer.tar") {
                for inner in tar::Archive::new(entry).entries().unwrap() {
                    names.push(inner.unwrap().path().unwrap().display().to_string());
                }
            }
        }
        assert!(names.iter().any(|name| name == "usr/bin/sh"), "{names:?}");
        assert!(names.iter().any(|name| name.contains("libc.so")), "{names:?}");
    }

    #[test]
    fn what_a_program_loads_is_read_from_every_kind_of_line() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(paths(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(paths("\tstatically linked\n"), Vec::<String>::new());
    }
}
