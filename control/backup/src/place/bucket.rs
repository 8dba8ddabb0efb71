//! Backups as objects of an S3-compatible server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, MultipartId, ObjectStore, ObjectStoreExt, RetryConfig,
};
use tokio::io::AsyncRead;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;
use url::Url;

use super::http::Connector;
use super::{Entry, Existing, Sink, tls};
use crate::BackupError;
use crate::secret::Secret;

/// The least that S3 takes for every part but the last.
const PART: usize = 5 << 20;
/// So many parts are under way at once; with the one that fills they bound the memory taken.
const UNDER_WAY: usize = 2;
/// For what moves no backup: list, delete, begin, complete, abort.
const CONTROL_WITHIN: Duration = Duration::from_secs(120);
/// Longest silence of a download.
const SILENCE: Duration = Duration::from_secs(60);

/// Whether secrets and backups may travel unencrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only TLS.
    #[default]
    Refuse,
    /// Plain HTTP, as somebody asked for in so many words.
    Allow,
}

/// How to reach a folder of a bucket.
#[derive(Clone, Debug)]
pub struct BucketSettings {
    /// The server; `None` is Amazon's for the region. Buckets are addressed by path.
    pub endpoint: Option<Url>,
    /// The bucket's name.
    pub bucket: String,
    /// The region; servers of one's own mostly take any.
    pub region: String,
    /// Where in the bucket; empty is its top.
    pub folder: String,
    /// The access key's id.
    pub access_key: Secret,
    /// The secret key.
    pub secret_key: Secret,
    /// The token of temporary keys.
    pub session_token: Option<Secret>,
    /// Trust these certificates (PEM) and no others; `None` trusts what the machine trusts.
    pub ca: Option<PathBuf>,
    /// Whether an `http` endpoint is taken.
    pub plain_http: PlainHttp,
    /// For how long a request is tried again after failures of network or server.
    pub retry_for: Duration,
}

impl BucketSettings {
    /// For how long a request is tried again unless otherwise said.
    pub const RETRY_FOR: Duration = Duration::from_secs(120);
    /// The region unless otherwise said.
    pub const REGION: &'static str = "us-east-1";
}

/// A folder of a bucket.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<AmazonS3>,
    bucket: String,
    folder: Path,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({self})")
    }
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.folder.as_ref().is_empty() { Ok(()) } else { write!(f, "/{}", self.folder) }
    }
}

impl Bucket {
    /// Checks the settings; asks nothing of the server yet.
    pub fn new(settings: &BucketSettings) -> Result<Self, BackupError> {
        let BucketSettings { endpoint, bucket, region, folder, .. } = settings;
        if bucket.is_empty() || bucket.contains('/') {
            return Err(BackupError::setting(format!("\"{bucket}\" is not the name of a bucket")));
        }
        let folder = Path::parse(folder).map_err(|error| {
            BackupError::setting(format!("the folder \"{folder}\" cannot be used: {error}"))
        })?;
        if let Some(url) = endpoint {
            check_endpoint(url, settings.plain_http)?;
        }
        let backoff = BackoffConfig { max_backoff: Duration::from_secs(10), ..BackoffConfig::default() };
        let retry = RetryConfig { backoff, max_retries: 10, retry_timeout: settings.retry_for };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_access_key_id(settings.access_key.reveal())
            .with_secret_access_key(settings.secret_key.reveal())
            .with_allow_http(settings.plain_http == PlainHttp::Allow)
            .with_client_options(ClientOptions::new().with_default_content_type("application/octet-stream"))
            .with_retry(retry)
            // One by one: not every server knows the other way.
            .with_disable_bulk_delete(true)
            .with_http_connector(Connector { tls: tls::client_config(settings.ca.as_deref())? });
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(token.reveal());
        }
        if let Some(url) = endpoint {
            builder = builder.with_endpoint(url.as_str().trim_end_matches('/'));
        }
        let store = builder.build().map_err(|error| BackupError::setting(explain(&error)))?;
        Ok(Self { store: Arc::new(store), bucket: bucket.clone(), folder })
    }

    fn path(&self, name: &str) -> Path {
        self.folder.clone().join(name)
    }

    fn failed(&self, doing: &str, name: &str, error: object_store::Error) -> BackupError {
        let at = format!("{self}/{name}");
        match error {
            object_store::Error::NotFound { .. } if doing != WRITING => BackupError::Missing { at },
            other => BackupError::Bucket { doing: format!("{doing} {at} failed"), why: explain(&other) },
        }
    }

    pub(super) async fn read(&self, name: &str) -> Result<Box<dyn AsyncRead + Send + Unpin>, BackupError> {
        let found = self.store.get(&self.path(name)).await;
        let found = found.map_err(|error| self.failed(READING, name, error))?;
        let (bucket, name) = (self.clone(), name.to_owned());
        let silent = move |_| BackupError::Bucket {
            doing: READING.to_owned(),
            why: "nothing came for a minute".to_owned(),
        };
        let stream = futures::stream::unfold(Some(found.into_stream()), move |stream| {
            let (bucket, name) = (bucket.clone(), name.clone());
            async move {
                let mut stream = stream?;
                match tokio::time::timeout(SILENCE, stream.next()).await.map_err(silent) {
                    Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(stream))),
                    Ok(Some(Err(error))) => Some((Err(bucket.failed(READING, &name, error)), None)),
                    Ok(None) => None,
                    Err(late) => Some((Err(late), None)),
                }
            }
        });
        Ok(Box::new(StreamReader::new(stream.boxed())))
    }

    pub(super) async fn begin_of(&self, name: &str, most: usize) -> Result<Bytes, BackupError> {
        let options = GetOptions { range: Some(GetRange::Bounded(0..most as u64)), ..GetOptions::default() };
        let path = self.path(name);
        let found = async { self.store.get_opts(&path, options).await?.bytes().await };
        within(found).await.map_err(|error| self.failed(READING, name, error))
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), BackupError> {
        let path = self.path(name);
        within(self.store.delete(&path)).await.map_err(|error| self.failed("deleting", name, error))
    }

    pub(super) async fn entries(&self) -> Result<Vec<Entry>, BackupError> {
        let list = within(self.store.list_with_delimiter(Some(&self.folder))).await;
        let list = list.map_err(|error| BackupError::Bucket {
            doing: format!("listing {self} failed"),
            why: explain(&error),
        })?;
        let entry = |object: object_store::ObjectMeta| {
            Some(Entry { name: object.location.filename()?.to_owned(), size: object.size })
        };
        Ok(list.objects.into_iter().filter_map(entry).collect())
    }

    /// Whether the name is taken is asked once, at the beginning: S3-compatible servers differ in
    /// whether they can be told not to replace.
    pub(super) async fn create(&self, name: &str, existing: Existing) -> Result<Box<dyn Sink>, BackupError> {
        let path = self.path(name);
        if existing == Existing::Refuse {
            match within(self.store.head(&path)).await {
                Ok(_) => return Err(BackupError::Exists { at: format!("{self}/{name}") }),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(WRITING, name, error)),
            }
        }
        Ok(Box::new(Upload {
            bucket: self.clone(),
            name: name.to_owned(),
            path,
            waiting: BytesMut::new(),
            begun: Begun(None),
            under_way: JoinSet::new(),
            done: Vec::new(),
        }))
    }
}

const READING: &str = "reading";
const WRITING: &str = "writing";

/// An object that is being uploaded: in one request where it is small, otherwise in parts.
struct Upload {
    bucket: Bucket,
    name: String,
    path: Path,
    waiting: BytesMut,
    begun: Begun,
    under_way: JoinSet<object_store::Result<(usize, PartId)>>,
    done: Vec<(usize, PartId)>,
}

/// A multipart upload that has begun; it is aborted where it is dropped.
struct Begun(Option<(Arc<AmazonS3>, Path, MultipartId)>);

impl Begun {
    async fn abort(mut self) {
        if let Some((store, path, id)) = self.0.take() {
            abort(store, path, id).await;
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let (Some((store, path, id)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(abort(store, path, id));
        }
    }
}

/// Where this fails, the bucket's own rules for unfinished uploads are what is left.
async fn abort(store: Arc<AmazonS3>, path: Path, id: MultipartId) {
    if let Err(error) = within(store.abort_multipart(&path, &id)).await {
        tracing::warn!(%path, why = explain(&error), "an unfinished upload could not be removed");
    }
}

impl Upload {
    fn failed(&self, error: object_store::Error) -> BackupError {
        self.bucket.failed(WRITING, &self.name, error)
    }

    async fn put_part(&mut self, part: Bytes) -> object_store::Result<()> {
        let store = Arc::clone(&self.bucket.store);
        let id = match &self.begun.0 {
            Some((_, _, id)) => id.clone(),
            None => {
                let id = within(store.create_multipart(&self.path)).await?;
                self.begun.0 = Some((Arc::clone(&store), self.path.clone(), id.clone()));
                id
            }
        };
        while self.under_way.len() >= UNDER_WAY {
            self.finish_one().await?;
        }
        let index = self.done.len() + self.under_way.len();
        let path = self.path.clone();
        self.under_way.spawn(async move {
            let done = store.put_part(&path, &id, index, part.into()).await?;
            Ok((index, done))
        });
        Ok(())
    }

    async fn finish_one(&mut self) -> object_store::Result<()> {
        if let Some(part) = self.under_way.join_next().await {
            self.done.push(part??);
        }
        Ok(())
    }

    async fn complete(&mut self) -> object_store::Result<()> {
        let last = self.waiting.split().freeze();
        if self.begun.0.is_none() {
            self.bucket.store.put(&self.path, last.into()).await?;
            return Ok(());
        }
        if !last.is_empty() {
            self.put_part(last).await?;
        }
        while !self.under_way.is_empty() {
            self.finish_one().await?;
        }
        self.done.sort_by_key(|(index, _)| *index);
        let parts = self.done.drain(..).map(|(_, part)| part).collect();
        if let Some((store, path, id)) = &self.begun.0 {
            within(store.complete_multipart(path, id, parts)).await?;
        }
        self.begun.0 = None;
        Ok(())
    }
}

#[async_trait]
impl Sink for Upload {
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            let now = bytes.split_to(bytes.len().min(PART - self.waiting.len()));
            self.waiting.extend_from_slice(&now);
            if self.waiting.len() == PART {
                let part = self.waiting.split().freeze();
                self.put_part(part).await.map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), BackupError> {
        match self.complete().await {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = self.failed(error);
                self.discard().await;
                Err(error)
            }
        }
    }

    async fn discard(self: Box<Self>) {
        let Self { begun, mut under_way, .. } = *self;
        under_way.shutdown().await;
        begun.abort().await;
    }
}

async fn within<T>(asked: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
    tokio::time::timeout(CONTROL_WITHIN, asked)
        .await
        .unwrap_or_else(|late| Err(object_store::Error::Generic { store: "S3", source: Box::new(late) }))
}

fn check_endpoint(url: &Url, plain_http: PlainHttp) -> Result<(), BackupError> {
    let why = match url.scheme() {
        "https" => None,
        "http" if plain_http == PlainHttp::Allow => None,
        "http" => Some("plain HTTP is only used with --snapshot-s3-insecure"),
        _ => Some("it must begin with https://"),
    };
    let why = why.or_else(|| {
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !bare { Some("keys and queries do not belong into it") } else { None }
    });
    match why {
        // Without what may be a secret in it.
        Some(why) => Err(BackupError::setting(format!(
            "the endpoint {}://{} cannot be used: {why}",
            url.scheme(),
            url.host_str().unwrap_or_default()
        ))),
        None => Ok(()),
    }
}

/// What went wrong, on one line: what the server said, otherwise the innermost cause.
fn explain(error: &object_store::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let innermost = causes.last().map(ToString::to_string).unwrap_or_default();
    let tag = |name: &str| {
        let (_, rest) = innermost.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text.to_owned())
    };
    let said = match (tag("Code"), tag("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code,
        _ => innermost,
    };
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> BucketSettings {
        BucketSettings {
            endpoint: Some(endpoint.parse().unwrap()),
            bucket: "backups".into(),
            region: BucketSettings::REGION.into(),
            folder: "site/a".into(),
            access_key: Secret::new("ID-OF-KEY"),
            secret_key: Secret::new("VERY-SECRET"),
            session_token: None,
            ca: None,
            plain_http: PlainHttp::Allow,
            retry_for: BucketSettings::RETRY_FOR,
        }
    }

    #[test]
    fn nothing_secret_shows() {
        let settings = settings("http://localhost:9");
        let bucket = Bucket::new(&settings).unwrap();
        assert_eq!(bucket.to_string(), "s3://backups/site/a");
        let shown = format!("{settings:?} {bucket:?}");
        assert!(!shown.contains("VERY-SECRET") && !shown.contains("ID-OF-KEY"), "{shown}");
    }

    #[test]
    fn plain_http_takes_a_word_of_its_own_and_other_schemes_are_refused() {
        let refused = |endpoint: &str, plain_http| {
            let settings = BucketSettings { plain_http, ..settings(endpoint) };
            Bucket::new(&settings).err().map(|error| error.to_string())
        };
        assert_eq!(refused("http://h:9", PlainHttp::Allow), None);
        assert_eq!(
            refused("http://h:9", PlainHttp::Refuse).unwrap(),
            "the endpoint http://h cannot be used: plain HTTP is only used with --snapshot-s3-insecure"
        );
        let said = refused("ftp://h", PlainHttp::Allow).unwrap();
        assert!(said.contains("must begin with https"), "{said}");
        let said = refused("https://user:pass@h", PlainHttp::Allow).unwrap();
        assert!(said.contains("do not belong") && !said.contains("pass@"), "{said}");
    }

    #[test]
    fn folders_and_buckets_that_cannot_be_are_refused() {
        for (bucket, folder) in [("", "f"), ("a/b", "f"), ("b", "a//b"), ("b", "../a")] {
            let settings =
                BucketSettings { bucket: bucket.into(), folder: folder.into(), ..settings("http://h") };
            assert!(Bucket::new(&settings).is_err(), "{bucket} {folder}");
        }
    }
}
