//! Loud skipping: what a machine cannot run is named on standard output and in a file that the runner counts.

use std::io::Write as _;

/// Records that `test` did not run. The line goes to standard output and to `target/skipped/<test>`.
pub fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
    let folder = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.parent()?.parent()?.join("skipped")))
        .expect("the target folder");
    std::fs::create_dir_all(&folder).expect("the folder of skipped tests");
    let mut file = std::fs::File::create(folder.join(test)).expect("a file");
    writeln!(file, "{why}").expect("the reason");
}
