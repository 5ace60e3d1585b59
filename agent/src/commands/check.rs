//! `offsite check`: everything that would make tonight's run fail, now and all at once.

use std::path::Path;

use serde::Serialize;

use super::output::{Output, Problems};
use super::{load_config, preflight};
use crate::failure::{Failure, Kind};

#[derive(Serialize)]
struct Checked {
    sources: usize,
    stores: usize,
    recipients: usize,
    findings: Vec<String>,
}

pub(super) fn run(path: &Path, output: Output) -> Result<(), Failure> {
    let config = load_config(path)?;
    let problems = preflight::problems(&config);
    if !problems.is_empty() {
        let what = format!("{} settings would make a run fail", problems.len());
        return Err(Failure::new(Kind::Usage, Problems { what, problems }));
    }
    let checked = Checked {
        sources: config.sources.len(),
        stores: config.place.stores.len(),
        recipients: config.recipients.count(),
        findings: Vec::new(),
    };
    output.result(&checked, || "Nothing was found that would make a run fail.".to_owned())
}
