//! The manifests of the resources as files.

use walstorage_crds::manifests::all;

use crate::yaml;

/// What every file begins with.
const HEADER: &str = "# Generated from the types by `walstorage-operator crds`; a test compares. Not to be edited.\n";

/// Name and text of every file, in the order in which they are applied. The same build always gives the same bytes.
///
/// # Errors
/// When a rule of the schemas names a place that is not there.
pub fn files() -> Result<Vec<(&'static str, String)>, String> {
    let manifests = all()?.into_iter();
    let file = |manifest: walstorage_crds::manifests::Manifest| {
        Ok((manifest.file, format!("{HEADER}{}", yaml::print_sorted(&manifest.definition)?)))
    };
    manifests.map(file).collect()
}
