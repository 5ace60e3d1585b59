//! What was measured, as a table for people and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::measure::Cost;

/// Everything that was measured, by what was done; several times each.
#[derive(Debug, Default)]
pub(crate) struct Report {
    order: Vec<String>,
    measured: BTreeMap<String, Vec<Measured>>,
    limits: BTreeMap<String, u64>,
}

/// One thing measured once.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Measured {
    #[serde(flatten)]
    cost: Cost,
    bytes: Option<u64>,
    objects: Option<u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    office_bytes: u64,
    medians: BTreeMap<&'a str, Measured>,
    limits: &'a BTreeMap<String, u64>,
    ratios: BTreeMap<&'static str, f64>,
    measured: &'a BTreeMap<String, Vec<Measured>>,
}

impl Report {
    /// Adds what something cost, and what it sent or stored.
    pub(crate) fn add(&mut self, name: &str, cost: Cost, bytes: Option<u64>, objects: Option<u64>) {
        if !self.measured.contains_key(name) {
            self.order.push(name.to_owned());
        }
        let list = self.measured.entry(name.to_owned()).or_default();
        list.push(Measured { cost, bytes, objects });
        eprintln!("{}", line(name, list.last().unwrap()));
    }

    /// Adds a number of bytes to compare with.
    pub(crate) fn limit(&mut self, name: &str, bytes: u64) {
        eprintln!("{name:<34} {:>38.2}", mib(bytes));
        self.limits.insert(name.to_owned(), bytes);
    }

    /// The median of each column, of all times that something was measured.
    fn median(&self, name: &str) -> Option<Measured> {
        let list = self.measured.get(name)?;
        let middle = |value: &dyn Fn(&Measured) -> f64| {
            let mut values: Vec<f64> = list.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[(values.len() - 1) / 2]
        };
        let cost = Cost {
            wall_s: middle(&|m| m.cost.wall_s),
            cpu_s: middle(&|m| m.cost.cpu_s),
            peak_mib: middle(&|m| m.cost.peak_mib),
        };
        let bytes = list[0].bytes.map(|_| middle(&|m| m.bytes.unwrap_or(0) as f64) as u64);
        Some(Measured { cost, bytes, objects: list[0].objects })
    }

    /// The table of medians, and the ratios that count.
    pub(crate) fn table(&self, office_bytes: u64) -> String {
        let mut table =
            format!("{:<34} {:>8} {:>8} {:>9} {:>10} {:>7}\n", "", "wall s", "CPU s", "peak MiB", "MiB", "objects");
        for name in &self.order {
            table += &line(name, &self.median(name).unwrap());
            table.push('\n');
        }
        for (name, bytes) in &self.limits {
            table += &format!("{name:<34} {:>38.2}\n", mib(*bytes));
        }
        table.push('\n');
        for (name, ratio) in self.ratios(office_bytes) {
            table += &format!("{name:<58} {ratio:>8.2}\n");
        }
        table
    }

    /// The same as JSON, with everything that was measured.
    pub(crate) fn json(&self, office_bytes: u64) -> String {
        let medians = self.order.iter().map(|name| (name.as_str(), self.median(name).unwrap())).collect();
        let (limits, measured) = (&self.limits, &self.measured);
        let ratios = self.ratios(office_bytes).into_iter().collect();
        let document = Document { version: 1, office_bytes, medians, limits, ratios, measured };
        serde_json::to_string_pretty(&document).unwrap()
    }

    fn ratios(&self, office_bytes: u64) -> Vec<(&'static str, f64)> {
        let gib = office_bytes as f64 / f64::from(1 << 30);
        let cpu = |name| self.median(name).map(|m| m.cost.cpu_s);
        let wall = |name| self.median(name).map(|m| m.cost.wall_s);
        let bytes = |name| self.median(name).and_then(|m| m.bytes).map(|bytes| bytes as f64);
        let limit = |name| self.limits.get(name).map(|bytes| *bytes as f64);
        let of = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
        let list = [
            ("full: CPU, of `zstd -3 | age`", of(cpu("full"), cpu("zstd -3 | age"))),
            ("full: wall, of `zstd -3 | age`", of(wall("full"), wall("zstd -3 | age"))),
            ("full: stored bytes, of `zstd -3`", of(bytes("full"), bytes("zstd -3 | age"))),
            ("S3: full: CPU, of `zstd -3 | age`", of(cpu("S3: full"), cpu("zstd -3 | age"))),
            ("unchanged: CPU s per GiB", cpu("unchanged").map(|cpu| cpu / gib)),
            ("unchanged: KiB sent", bytes("unchanged").map(|bytes| bytes / 1024.0)),
            ("day 2: CPU s per GiB", cpu("day 2").map(|cpu| cpu / gib)),
            ("day 2: bytes sent, of the limit", of(bytes("day 2"), limit("day 2: limit"))),
            ("week: MiB sent in six increments", limit("week: sent").map(|bytes| bytes / f64::from(1 << 20))),
            ("restore: CPU, of `age -d | zstd -d` and SHA-256", of(cpu("restore"), cpu("age -d | zstd -d, SHA-256"))),
            (
                "restore: wall, of `age -d | zstd -d` and SHA-256",
                of(wall("restore"), wall("age -d | zstd -d, SHA-256")),
            ),
            ("restore of the last day: CPU, of that of the full", of(cpu("restore of the last day"), cpu("restore"))),
        ];
        list.into_iter().filter_map(|(name, ratio)| Some((name, ratio?))).collect()
    }
}

fn line(name: &str, measured: &Measured) -> String {
    let Measured { cost: Cost { wall_s, cpu_s, peak_mib }, bytes, objects } = measured;
    let bytes = bytes.map_or_else(String::new, |bytes| format!("{:.2}", mib(bytes)));
    let objects = objects.map_or_else(String::new, |objects| objects.to_string());
    format!("{name:<34} {wall_s:>8.2} {cpu_s:>8.2} {peak_mib:>9.1} {bytes:>10} {objects:>7}")
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
