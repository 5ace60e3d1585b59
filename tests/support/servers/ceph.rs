//! Ceph's gateway, by hand: it takes a cluster of its own, so that no run of all tests starts one. The tests of locks and of
//! policies meet it instead of SeaweedFS with
//!
//! ```text
//! OFFSITE_TEST_CEPH=http://127.0.0.1:7480 CEPH_CONF=/path/ceph.conf cargo test --workspace --test it -- lock:: policies::
//! ```
//!
//! where `radosgw-admin`, with that configuration and the name `client.rgw`, may make users.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::seaweedfs::{Bucket, Keys, ROLES, seaweedfs};
use super::{S3Server, unique};

struct Ceph {
    url: String,
}

/// The server that locks and policies are tried on.
pub fn s3_with_policies() -> &'static dyn S3Server {
    static CEPH: LazyLock<Option<Ceph>> = LazyLock::new(|| std::env::var("OFFSITE_TEST_CEPH").ok().map(Ceph::new));
    match &*CEPH {
        Some(ceph) => ceph,
        None => seaweedfs(),
    }
}

impl Ceph {
    fn new(url: String) -> Self {
        let everybody = ROLES.iter().map(|role| (role.name, role.keys));
        for (name, keys) in everybody.chain([("admin-of-tests", Keys::ADMIN), ("site-a-of-tests", Keys::SITE_A)]) {
            let mut make = Command::new("radosgw-admin");
            make.args(["-n", "client.rgw", "user", "create", "--uid", name, "--display-name", name]);
            let output = make.args(["--access-key", keys.id, "--secret-key", keys.secret]).output().unwrap();
            // An earlier run may have made it.
            let there = output.status.code() == Some(17);
            assert!(output.status.success() || there, "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Self { url }
    }

    /// The policies of all roles in one, as a bucket has it.
    fn with_policy(bucket: Bucket) -> Bucket {
        // What another user stores belongs to that user: without this, the owner of the bucket could not even read it.
        let all = format!("arn:aws:s3:::{}", bucket.name);
        let mut statements = vec![json!({
            "Sid": "Owner",
            "Effect": "Allow",
            "Principal": { "AWS": ["arn:aws:iam:::user/admin-of-tests"] },
            "Action": ["s3:*"],
            "Resource": [all, format!("{all}/*")],
        })];
        for role in &ROLES {
            let policy: Value = serde_json::from_str(&role.policy(&bucket.name)).unwrap();
            for mut statement in policy["Statement"].as_array().unwrap().clone() {
                statement["Sid"] =
                    format!("{}{}", role.name.replace('-', ""), statement["Sid"].as_str().unwrap()).into();
                statement["Principal"] = json!({ "AWS": [format!("arn:aws:iam:::user/{}", role.name)] });
                statements.push(statement);
            }
        }
        bucket.set_policy(&json!({ "Version": "2012-10-17", "Statement": statements }));
        bucket
    }
}

/// The server outlives the tests, so a bucket's name is of this run.
fn of_this_run(name: &str) -> String {
    format!("{}-{}", unique(name), jiff::Timestamp::now().as_millisecond())
}

impl S3Server for Ceph {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn bucket(&self, name: &str) -> Bucket {
        Self::with_policy(Bucket::make(of_this_run(name), self.url(), false))
    }

    fn locking_bucket(&self, name: &str) -> Bucket {
        Self::with_policy(Bucket::make(of_this_run(name), self.url(), true))
    }
}
