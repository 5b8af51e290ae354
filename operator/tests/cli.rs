//! The program: what it prints, where, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use walstorage_crds::config::Config;

fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_walstorage-operator"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends over its arguments does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

fn storage(spec: &str) -> String {
    format!("apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\nmetadata: {{name: orders}}\nspec: {spec}\n")
}

#[test]
fn the_example_renders_to_the_committed_configuration() {
    let file = example("walstorage.yaml");
    let arguments = ["render", "-f", file.to_str().unwrap(), "--part", "config"];
    let (code, text, warnings) = run(&arguments, "");
    assert_eq!((code, warnings.as_str()), (0, ""));
    assert_eq!(text, include_str!("golden/walstorage.toml"));
    assert_eq!(run(&arguments, "").1, text);
    assert_eq!(Config::parse(&text, true).unwrap().config.rendered_toml(), text);
}

#[test]
fn with_a_root_every_path_lies_below_it() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    let spec = "{walUrls: [{name: a, url: 'file:///wal/a'}, {name: b, url: 's3://bucket', bucket: {credentials: {secretName: s}, \
                caBundle: {configMapName: ca, key: ca.crt}}}], journal: {name: j, url: 'file:///wal/j'}}";
    let (code, text, warnings) =
        run(&["render", "-f", "-", "--part", "config", "--root", root.to_str().unwrap()], &storage(spec));
    assert_eq!((code, warnings.as_str()), (0, ""));
    let config = Config::parse(&text, true).unwrap().config;
    let paths = config.wal.wal_urls.iter().chain(&config.wal.journal_url).filter_map(|url| url.file_path());
    assert_eq!(paths.collect::<Vec<_>>(), [root.join("wal/a"), root.join("wal/j")]);
    let options = config.wal.url_options.values().next().unwrap();
    assert_eq!(options.credentials_dir, Some(root.join("etc/walstorage/credentials/b")));
    assert_eq!(options.ca_file, Some(root.join("etc/walstorage/ca/b.crt")));
    assert_eq!(config.sidecar.socket, root.join("wal.sock"));
}

#[test]
fn a_root_that_does_not_exist_yet_is_taken_from_the_working_directory() {
    let (code, text, _) = run(&["render", "-f", "-", "--part", "config", "--root", "./not yet"], &storage("{}"));
    assert_eq!(code, 0);
    let expected = std::env::current_dir().unwrap().join("not yet/workspace/data/wal");
    let config = Config::parse(&text, true).unwrap().config;
    assert_eq!(config.wal.wal_urls[0].file_path().unwrap(), expected);
}

#[test]
fn a_root_too_long_for_a_socket_is_refused() {
    let root = format!("/{}", "x".repeat(100));
    let (code, text, errors) = run(&["render", "-f", "-", "--part", "config", "--root", &root], &storage("{}"));
    assert_eq!((code, text.as_str()), (2, ""));
    assert!(errors.contains("too long for a unix socket"), "{errors}");
}

#[test]
fn the_original_examples_become_resources_and_back() {
    for name in ["one-directory", "three-nvme", "multi-region", "serverless"] {
        let file = example(&format!("{name}.toml"));
        let (code, resource, warnings) = run(&["render", "--from-config", file.to_str().unwrap()], "");
        assert_eq!((code, warnings.as_str()), (0, ""), "{name}");
        let (code, text, _) = run(&["render", "-f", "-", "--part", "config"], &resource);
        let config = Config::parse(&std::fs::read_to_string(&file).unwrap(), true).unwrap().config;
        assert_eq!((code, text), (0, config.rendered_toml()), "{name}");
    }
}

#[test]
fn settings_without_a_field_are_refused_or_dropped() {
    let text =
        "[storage.wal_config]\nwal_url = 'file:///wal/a'\nio = 'direct'\nsync_mode = 1\n[sidecar]\nsocket = '/s'";
    let (code, resource, errors) = run(&["render", "--from-config", "-"], text);
    assert_eq!((code, resource.as_str()), (2, ""));
    assert_eq!(
        errors,
        "standard input: sidecar.socket = \"/s\": the resource has no field for it; in a cluster it keeps its default; remove it, or leave it out with --drop\n\
         standard input: storage.wal_config.io = direct: the resource has no field for it; in a cluster it keeps its default; remove it, or leave it out with --drop\n"
    );
    let (code, resource, errors) = run(&["render", "--from-config", "-", "--drop", "--name", "orders"], text);
    assert_eq!(code, 0);
    assert_eq!(
        resource,
        "apiVersion: walstorage.dev/v1alpha1\nkind: WalStorage\nmetadata:\n  name: orders\nspec:\n  walUrls:\n  - name: d1\n    url: file:///wal/a\n"
    );
    assert_eq!(
        errors,
        "standard input: warning: line 4: storage.wal_config.sync_mode: unknown key, ignored\n\
         standard input: warning: left out: sidecar.socket = \"/s\": the resource has no field for it; in a cluster it keeps its default\n\
         standard input: warning: left out: storage.wal_config.io = direct: the resource has no field for it; in a cluster it keeps its default\n"
    );
}

#[test]
fn wrong_input_ends_with_2_and_names_file_field_value_and_remedy() {
    for (arguments, input, message) in [
        (
            &["render", "-f", "-", "--part", "config"][..],
            storage("{walUrls: [{name: a, url: 'file:///a/../b'}], memoryFlushSize: 1Ti}"),
            "standard input: spec.walUrls[0].url = file:///a/../b: the path segment \"..\" is not allowed; allowed: a path without . and ..\n\
             standard input: spec.memoryFlushSize = 1Ti: above globalFlushThreshold = 512Mi; allowed: at most 512Mi\n",
        ),
        (
            &["render", "-f", "/nowhere/walstorage.yaml", "--part", "config"],
            String::new(),
            "/nowhere/walstorage.yaml: cannot be read: No such file or directory (os error 2)\n",
        ),
        (
            &["render", "--from-config", "-"],
            "[storage.wal_config]\nio = 1".to_owned(),
            "standard input: line 2: storage.wal_config.io = 1: not a string; allowed: auto, direct, buffered\n",
        ),
        (
            &["render", "--from-config", "-", "--name", "a.b"],
            String::new(),
            "standard input: metadata.name = \"a.b\": not a name for a WalStorage; allowed: a DNS label (a-z, 0-9, -) of at most 40 characters without --\n",
        ),
        (
            &["render", "-f", "-", "--root", "/x"],
            storage("{}"),
            "--root is for --part config only: a cluster mounts what the resource says\n",
        ),
    ] {
        let (code, text, errors) = run(arguments, &input);
        assert_eq!((code, text.as_str(), errors.as_str()), (2, "", message));
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        &[][..],
        &["render"],
        &["render", "-f", "a", "--from-config", "b"],
        &["render", "--from-config", "b", "--root", "c"],
        &["render", "-f", "a", "--drop"],
        &["render", "-f", "a", "--part", "some"],
        &["reconcile"],
    ] {
        let (code, text, errors) = run(arguments, "");
        assert!(
            code == 2 && text.is_empty() && (errors.contains("Usage:") || errors.contains("error:")),
            "{arguments:?}: {code} {errors}"
        );
    }
}

#[test]
fn a_warning_goes_to_standard_error_only() {
    let spec = "{walUrls: [{name: b, url: 's3://bucket', bucket: {endpoint: 'http://minio:9000'}}]}";
    let (code, text, errors) = run(&["render", "-f", "-", "--part", "config"], &storage(spec));
    assert_eq!(code, 0);
    assert!(Config::parse(&text, true).is_ok());
    assert!(errors.contains("warning:") && errors.contains("allow_http = true"), "{errors}");
}

#[test]
fn several_files_are_searched_for_the_one_storage() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, other) = (file("storage.yaml", &storage("{}")), file("workload.yaml", "kind: Deployment\n"));
    let (code, text, _) = run(&["render", "-f", &other, "-f", &one, "--part", "config"], "");
    assert_eq!((code, text), (0, Config::default().rendered_toml()));
    let (code, _, errors) = run(&["render", "-f", &one, "-f", &one, "--part", "config"], "");
    assert_eq!((code, errors.as_str()), (2, "render: 2 files with a WalStorage; allowed: exactly one\n"));
}

#[test]
fn crds_are_printed_or_written() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text, _) = run(&["crds"], "");
    assert_eq!(code, 0);
    assert_eq!(text.matches("\nkind: CustomResourceDefinition\n").count(), 2);
    let (code, nothing, _) = run(&["crds", "--dir", folder.path().to_str().unwrap()], "");
    assert_eq!((code, nothing.as_str()), (0, ""));
    for name in ["walstorages", "walwriters"] {
        let path = folder.path().join(format!("{name}.walstorage.dev.yaml"));
        assert!(text.contains(&std::fs::read_to_string(path).unwrap()), "{name}");
    }
    let (code, _, errors) = run(&["crds", "--dir", "/nowhere"], "");
    assert!(code == 1 && errors.contains("cannot write /nowhere/"), "{errors}");
}

#[test]
fn help_and_version_end_with_0_and_teach() {
    for (arguments, word) in [
        (&["--help"][..], "Examples:"),
        (&["render", "--help"], "--root ./wal"),
        (&["crds", "--help"], "--dir"),
        (&["version"], env!("CARGO_PKG_VERSION")),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let (code, text, _) = run(arguments, "");
        assert!(code == 0 && text.contains(word), "{arguments:?}: {text}");
    }
}
