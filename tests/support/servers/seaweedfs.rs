//! SeaweedFS: the S3 server with everything that the program uses, over http and https.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleRule, LifecycleRuleFilter, NoncurrentVersionExpiration,
    ObjectLockRetention, ObjectLockRetentionMode,
};

use super::{S3Server, unique, write_settings};
use crate::process::{Recipe, Server, free_ports};
use crate::{guard, http, tls, wait_until};

/// A SeaweedFS, in one process.
#[derive(Debug)]
pub struct SeaweedFs {
    /// The process, to be killed and started again with [`start_again`](Self::start_again).
    pub server: Server,
    http: u16,
    https: u16,
    master: u16,
    webdav: u16,
}

/// An access key and its secret.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// What `AWS_ACCESS_KEY_ID` is to hold.
    pub id: &'static str,
    /// What `AWS_SECRET_ACCESS_KEY` is to hold.
    pub secret: &'static str,
}

impl Keys {
    /// May do everything.
    pub const ADMIN: Self = Self { id: "AKADMIN00000000000001", secret: "admin-secret-0000000000000000000000001" };
    /// May read, write and list below `site-a/` of every bucket, and delete there.
    pub const SITE_A: Self = Self { id: "AKSITEA00000000000002", secret: "site-a-secret-000000000000000000000002" };
    /// The same for `site-b/`.
    pub const SITE_B: Self = Self { id: "AKSITEB00000000000003", secret: "site-b-secret-000000000000000000000003" };
    /// An agent's key as `deploy/policies` has it, for the site `site-a` of every bucket.
    pub const AGENT_A: Self = Self { id: "AKAGENT00000000000004", secret: "agent-a-secret-00000000000000000000004" };
    /// The same for `site-b`.
    pub const AGENT_B: Self = Self { id: "AKAGENT00000000000006", secret: "agent-b-secret-00000000000000000000006" };
    /// A keeper's key as `deploy/policies` has it, for every site below `site-a`.
    pub const KEEPER_A: Self = Self { id: "AKKEEPER0000000000007", secret: "keeper-a-secret-0000000000000000000007" };
    /// A restorer's key as `deploy/policies` has it, for `site-a`.
    pub const RESTORER_A: Self = Self { id: "AKRESTORER00000000008", secret: "restorer-a-secret-00000000000000000008" };
    /// A key that says who asks and may do nothing.
    pub const NOBODY: Self = Self { id: "AKNOBODY0000000000005", secret: "nobody-secret-000000000000000000000005" };
}

/// Somebody with a policy of `deploy/policies`.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) keys: Keys,
    file: &'static str,
    place: &'static str,
    of: &'static str,
}

/// Everybody with such a policy.
pub(super) const ROLES: [Role; 4] = [
    Role { name: "agent-a", keys: Keys::AGENT_A, file: "agent.json", place: "FOLDER/SITE", of: "site-a" },
    Role { name: "agent-b", keys: Keys::AGENT_B, file: "agent.json", place: "FOLDER/SITE", of: "site-b" },
    Role { name: "keeper-a", keys: Keys::KEEPER_A, file: "keeper.json", place: "FOLDER", of: "site-a" },
    Role { name: "restorer-a", keys: Keys::RESTORER_A, file: "restorer.json", place: "FOLDER/SITE", of: "site-a" },
];

impl Role {
    /// The policy for this bucket.
    pub(super) fn policy(&self, bucket: &str) -> String {
        let path = format!("{}/../deploy/policies/{}", env!("CARGO_MANIFEST_DIR"), self.file);
        let text = std::fs::read_to_string(path).unwrap();
        text.replace("arn:aws:s3:::BUCKET", &format!("arn:aws:s3:::{bucket}")).replace(self.place, self.of)
    }
}

/// The SeaweedFS that all tests share; a test stores in a [`bucket`](SeaweedFs::bucket) of its own.
pub fn seaweedfs() -> &'static SeaweedFs {
    static SEAWEEDFS: LazyLock<SeaweedFs> = LazyLock::new(SeaweedFs::start);
    &SEAWEEDFS
}

impl SeaweedFs {
    /// One for a test that kills it.
    pub fn start() -> Self {
        let folder = guard::server_folder("seaweedfs");
        write_settings(&folder, "s3.json", &identities().to_string());
        std::fs::create_dir(folder.join("data")).unwrap();
        let [http, https, webdav, master, volume, filer, s3_grpc, master_grpc, volume_grpc, filer_grpc] = free_ports();
        // It leaves these behind, whatever its settings are.
        for (part, port) in [("s3", s3_grpc), ("master", master_grpc), ("volume", volume_grpc), ("filer", filer_grpc)] {
            guard::made(Path::new(&format!("/tmp/seaweedfs-{part}-grpc-{port}.sock")));
        }
        let in_folder = |name: &str| folder.join(name).display().to_string();
        let tls = tls::authority();
        let recipe = Recipe::new("SeaweedFS", &folder, "weed")
            .privileged()
            .env("GOMEMLIMIT", "400MiB")
            // A bucket would begin with seven volumes, of as many as the disk has room for.
            .env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1")
            // It would report statistics to its maker, choose a public interface, and wait long for an election.
            .args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"])
            .args(["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms", "-volume.preStopSeconds=0"])
            .args(["-master.volumeSizeLimitMB=1024", "-volume.max=1000", "-filer", "-s3", "-s3.iam.readOnly=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.domainName=s3.localhost"])
            .arg("-webdav")
            .arg(format!("-webdav.port={webdav}"))
            .arg(format!("-webdav.cacheDir={}", in_folder("webdav")))
            .arg(format!("-dir={}", in_folder("data")))
            .arg(format!("-master.port={master}"))
            .arg(format!("-master.port.grpc={master_grpc}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-volume.port.grpc={volume_grpc}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-filer.port.grpc={filer_grpc}"))
            .arg(format!("-filer.localSocket={}", in_folder("filer.sock")))
            .arg(format!("-s3.port={http}"))
            .arg(format!("-s3.port.grpc={s3_grpc}"))
            .arg(format!("-s3.localSocket={}", in_folder("s3.sock")))
            .arg(format!("-s3.config={}", in_folder("s3.json")))
            .arg(format!("-s3.port.https={https}"))
            .arg(format!("-s3.cert.file={}", tls.certificate.display()))
            .arg(format!("-s3.key.file={}", tls.key.display()));
        let server = recipe.start(|| ready(http, master));
        wait_until(Duration::from_secs(60), "SeaweedFS' WebDAV", || http::answers(webdav));
        Self { server, http, https, master, webdav }
    }

    /// Starts it anew after it was killed, on the same ports and data.
    pub fn start_again(&self) {
        self.server.start_again(|| ready(self.http, self.master));
    }

    /// The endpoint, not encrypted. Any region does.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// The endpoint with a certificate signed by [`authority`](crate::tls::authority).
    pub fn https_url(&self) -> String {
        format!("https://localhost:{}", self.https)
    }

    /// A new collection of its WebDAV server, which asks for no login; its name begins with `name`.
    pub fn webdav_url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{}/", self.webdav, unique(name))
    }

    /// The port of [`url`](Self::url), for a proxy in front of it.
    pub fn port(&self) -> u16 {
        self.http
    }

    /// Makes a bucket whose name begins with `name`.
    pub fn bucket(&self, name: &str) -> Bucket {
        self.make_bucket(name, false)
    }

    /// Makes a bucket that keeps versions and can lock them.
    pub fn locking_bucket(&self, name: &str) -> Bucket {
        self.make_bucket(name, true)
    }

    /// The bucket of this name, which was made before.
    pub fn named_bucket(&self, name: &str) -> Bucket {
        Bucket::new(name.to_owned(), self.url())
    }

    fn make_bucket(&self, name: &str, locking: bool) -> Bucket {
        Bucket::make(unique(name), self.url(), locking)
    }
}

impl S3Server for SeaweedFs {
    fn url(&self) -> String {
        self.url()
    }

    fn bucket(&self, name: &str) -> Bucket {
        self.bucket(name)
    }

    fn locking_bucket(&self, name: &str) -> Bucket {
        self.locking_bucket(name)
    }
}

/// A bucket, as its owner sees it: to look at what was stored, and to damage it.
#[derive(Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    url: String,
    client: Client,
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Its key.
    pub key: String,
    /// Its version.
    pub id: String,
}

impl Bucket {
    fn new(name: String, url: String) -> Self {
        let client = client(&url);
        Self { name, url, client }
    }

    /// A new bucket of the server at `url`; one that locks keeps versions.
    pub(super) fn make(name: String, url: String, locking: bool) -> Self {
        let bucket = Self::new(name, url);
        let create = bucket.client.create_bucket().bucket(&bucket.name).object_lock_enabled_for_bucket(locking).send();
        wait(async move { create.await.unwrap() });
        bucket
    }

    /// Gives it a policy.
    pub(super) fn set_policy(&self, policy: &serde_json::Value) {
        let put = self.client.put_bucket_policy().bucket(&self.name).policy(policy.to_string()).send();
        wait(async move { put.await.unwrap() });
    }

    /// The bucket as the holder of other keys meets it.
    pub fn as_seen_by(&self, keys: Keys) -> Self {
        Self { name: self.name.clone(), url: self.url.clone(), client: client_of(&self.url, keys) }
    }

    /// Every version of every object; no delete markers.
    pub fn versions(&self) -> Vec<Version> {
        let list = self.client.list_object_versions().bucket(&self.name).send();
        wait(async move {
            let found = list.await.unwrap();
            assert!(!found.is_truncated().unwrap_or_default(), "more than one page");
            let text = |text: Option<&str>| text.unwrap().to_owned();
            let mut versions: Vec<_> = found
                .versions()
                .iter()
                .map(|version| Version { key: text(version.key()), id: text(version.version_id()) })
                .collect();
            versions.sort();
            versions
        })
    }

    /// The keys of objects that a deletion hides.
    pub fn hidden(&self) -> BTreeSet<String> {
        let list = self.client.list_object_versions().bucket(&self.name).send();
        wait(async move {
            let found = list.await.unwrap();
            let newest = found.delete_markers().iter().filter(|marker| marker.is_latest().unwrap_or_default());
            newest.map(|marker| marker.key().unwrap().to_owned()).collect()
        })
    }

    /// Gives it the rule of `deploy/policies/lifecycle.json`, of so many days, for what lies below `folder`.
    pub fn remove_hidden_after(&self, days: i32, folder: &str) {
        let expiration = NoncurrentVersionExpiration::builder().noncurrent_days(days).build();
        let rule = LifecycleRule::builder()
            .id("what-offsite-removed")
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(folder).build())
            .noncurrent_version_expiration(expiration)
            .build();
        let rules = BucketLifecycleConfiguration::builder().rules(rule.unwrap()).build().unwrap();
        let put = self.client.put_bucket_lifecycle_configuration().bucket(&self.name).lifecycle_configuration(rules);
        let put = put.send();
        wait(async move { put.await.unwrap() });
    }

    /// Tries to destroy a version, by the special right to do so as well; answers whether the server let it.
    pub fn try_destroy(&self, version: &Version) -> bool {
        let delete = self.client.delete_object().bucket(&self.name).key(&version.key).version_id(&version.id);
        let (plain, bypassing) = (delete.clone().send(), delete.bypass_governance_retention(true).send());
        wait(async move { plain.await.is_ok() | bypassing.await.is_ok() })
    }

    /// Tries to let the lock of a version end in a minute, or to take it for a weaker one.
    pub fn try_unlock(&self, version: &Version) -> bool {
        let soon = DateTime::from(SystemTime::now() + Duration::from_secs(60));
        let tries = [ObjectLockRetentionMode::Compliance, ObjectLockRetentionMode::Governance].map(|mode| {
            let shorter = ObjectLockRetention::builder().mode(mode).retain_until_date(soon).build();
            let put = self.client.put_object_retention().bucket(&self.name).key(&version.key).version_id(&version.id);
            put.retention(shorter).bypass_governance_retention(true).send()
        });
        wait(async move {
            let mut let_it = false;
            for one in tries {
                let_it |= one.await.is_ok();
            }
            let_it
        })
    }

    /// Tries to put another object in the place of one.
    pub fn try_write(&self, key: &str, bytes: &[u8]) -> bool {
        let body = ByteStream::from(bytes.to_vec());
        let put = self.client.put_object().bucket(&self.name).key(key).body(body).send();
        wait(async move { put.await.is_ok() })
    }

    /// Tries to delete an object, which in a bucket with versions hides it.
    pub fn try_delete(&self, key: &str) -> bool {
        let delete = self.client.delete_object().bucket(&self.name).key(key).send();
        wait(async move { delete.await.is_ok() })
    }

    /// Tries to copy an object to another key.
    pub fn try_copy(&self, from: &str, to: &str) -> bool {
        let source = format!("{}/{from}", self.name);
        let copy = self.client.copy_object().bucket(&self.name).key(to).copy_source(source).send();
        wait(async move { copy.await.is_ok() })
    }

    /// Tries to look at an object.
    pub fn try_head(&self, key: &str) -> bool {
        let head = self.client.head_object().bucket(&self.name).key(key).send();
        wait(async move { head.await.is_ok() })
    }

    /// Tries to read an object.
    pub fn try_read(&self, key: &str) -> bool {
        let get = self.client.get_object().bucket(&self.name).key(key).send();
        wait(async move { get.await.is_ok() })
    }

    /// Tries to list what lies below a prefix.
    pub fn try_list(&self, prefix: &str) -> bool {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).send();
        wait(async move { list.await.is_ok() })
    }

    /// Size of every object, by key.
    pub fn list(&self) -> BTreeMap<String, u64> {
        let list = self.client.list_objects_v2().bucket(&self.name).into_paginator().send();
        wait(async move {
            let mut list = list;
            let mut objects = BTreeMap::new();
            while let Some(page) = list.next().await {
                for object in page.unwrap().contents() {
                    objects.insert(object.key().unwrap().to_owned(), object.size().unwrap().cast_unsigned());
                }
            }
            objects
        })
    }

    /// The bytes of an object.
    pub fn read(&self, key: &str) -> Vec<u8> {
        let get = self.client.get_object().bucket(&self.name).key(key).send();
        wait(async move { get.await.unwrap().body.collect().await.unwrap().to_vec() })
    }

    /// Makes or replaces an object.
    pub fn write(&self, key: &str, bytes: &[u8]) {
        let body = ByteStream::from(bytes.to_vec());
        let put = self.client.put_object().bucket(&self.name).key(key).body(body).send();
        wait(async move { put.await.unwrap() });
    }

    /// Removes an object.
    pub fn delete(&self, key: &str) {
        let delete = self.client.delete_object().bucket(&self.name).key(key).send();
        wait(async move { delete.await.unwrap() });
    }

    /// Forgets every upload in parts that was begun and not finished, as a bucket's rule would.
    pub fn abort_all(&self) {
        for (key, upload) in self.unfinished() {
            let abort = self.client.abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload).send();
            wait(async move { abort.await.unwrap() });
        }
    }

    /// Key and upload id of every upload in parts that was begun and not finished.
    pub fn unfinished(&self) -> Vec<(String, String)> {
        let list = self.client.list_multipart_uploads().bucket(&self.name).send();
        wait(async move {
            let found = list.await.unwrap();
            let text = |text: Option<&str>| text.unwrap().to_owned();
            found.uploads().iter().map(|upload| (text(upload.key()), text(upload.upload_id()))).collect()
        })
    }
}

/// Whether the gateway answers and a volume can be written: the gateway is there seconds before the volumes are.
fn ready(http: u16, master: u16) -> bool {
    let assigned = http::get(master, "/dir/assign").is_some_and(|(_, answer)| answer.contains("\"fid\""));
    assigned && http::get(http, "/status").is_some_and(|(status, _)| status == 200)
}

/// A client with all rights. Checksums only where they are asked for: the most portable form.
fn client(url: &str) -> Client {
    client_of(url, Keys::ADMIN)
}

fn client_of(url: &str, keys: Keys) -> Client {
    let credentials = Credentials::new(keys.id, keys.secret, None, None, "tests");
    let settings = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(url)
        .region(Region::new("us-east-1"))
        .credentials_provider(credentials)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(settings)
}

/// Runs a request to its end on a thread of its own, so that tests with and without a runtime can ask.
fn wait<T: Send + 'static>(request: impl Future<Output = T> + Send + 'static) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(request);
    std::thread::spawn(run).join().expect("the request failed; its panic is above")
}

/// The server's own list of who may do what.
fn identities() -> serde_json::Value {
    let site = |name: &str, keys: Keys| {
        serde_json::json!({
            "name": name,
            "credentials": [{ "accessKey": keys.id, "secretKey": keys.secret }],
            "policyNames": [name],
        })
    };
    let policy = |name: &str, site: &str, actions: &[&str]| {
        let content = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [
                { "Effect": "Allow", "Action": actions, "Resource": [format!("arn:aws:s3:::*/{site}/*")] },
                {
                    "Effect": "Allow",
                    "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
                    "Resource": ["arn:aws:s3:::*"],
                    "Condition": { "StringLike": { "s3:prefix": [format!("{site}/*")] } },
                },
            ],
        });
        serde_json::json!({ "name": name, "content": content.to_string() })
    };
    let shipped = |role: &Role| serde_json::json!({ "name": role.name, "content": role.policy("*") });
    let all = ["s3:GetObject", "s3:PutObject", "s3:PutObjectRetention", "s3:GetObjectRetention", "s3:DeleteObject"];
    let more = ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:DeleteObjectVersion"];
    let all = [&all[..], &more].concat();
    serde_json::json!({
        "identities": [
            {
                "name": "admin",
                "credentials": [{ "accessKey": Keys::ADMIN.id, "secretKey": Keys::ADMIN.secret }],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            site("site-a", Keys::SITE_A),
            site("site-b", Keys::SITE_B),
            site("agent-a", Keys::AGENT_A),
            site("agent-b", Keys::AGENT_B),
            site("keeper-a", Keys::KEEPER_A),
            site("restorer-a", Keys::RESTORER_A),
            { "name": "nobody", "credentials": [{ "accessKey": Keys::NOBODY.id, "secretKey": Keys::NOBODY.secret }], "actions": [] },
        ],
        "policies": [
            policy("site-a", "site-a", &all),
            policy("site-b", "site-b", &all),
            shipped(&ROLES[0]),
            shipped(&ROLES[1]),
            shipped(&ROLES[2]),
            shipped(&ROLES[3]),
        ],
    })
}
