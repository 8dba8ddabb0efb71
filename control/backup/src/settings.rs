//! From what the command line gives to settings, checked: one clear line for what cannot be.

use std::path::{Path, PathBuf};

use url::Url;

use crate::place::{Bucket, BucketSettings, Location, Place, PlainHttp};
use crate::schedule::{Retention, Schedule};
use crate::secret::{Passphrase, Secret};
use crate::{BackupError, Seal};

/// The flags about snapshots as they were given; `None` is a flag that was not.
#[derive(Clone, Debug, Default)]
pub struct SettingsText {
    /// `--snapshot-schedule`
    pub schedule: Option<String>,
    /// `--snapshot-retention`
    pub retention: Option<String>,
    /// `--snapshot-dir`
    pub dir: Option<PathBuf>,
    /// `--snapshot-passphrase-file`
    pub passphrase_file: Option<PathBuf>,
    /// `--snapshot-s3-…`
    pub s3: S3Text,
}

/// The flags about S3 as they were given.
#[derive(Clone, Debug, Default)]
pub struct S3Text {
    /// `--snapshot-s3-endpoint`: host, `host:port` or a URL.
    pub endpoint: Option<String>,
    /// `--snapshot-s3-bucket`
    pub bucket: Option<String>,
    /// `--snapshot-s3-region`
    pub region: Option<String>,
    /// `--snapshot-s3-folder`
    pub folder: Option<String>,
    /// `--snapshot-s3-access-key`; otherwise `AWS_ACCESS_KEY_ID`.
    pub access_key: Option<Secret>,
    /// `--snapshot-s3-secret-key`; otherwise `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Option<Secret>,
    /// `--snapshot-s3-secret-key-file`: a file that holds the secret key.
    pub secret_key_file: Option<PathBuf>,
    /// `--snapshot-s3-ca`
    pub ca: Option<PathBuf>,
    /// `--snapshot-s3-insecure`
    pub plain_http: PlainHttp,
}

/// Looks up a variable of the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the flags mean.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When backups are made; `None` is never.
    pub schedule: Option<Schedule>,
    /// How many are kept at each place.
    pub retention: Retention,
    /// Where they go: the bucket, the directory, or both where both were named.
    pub places: Vec<Place>,
    /// Whether they are sealed.
    pub seal: Option<Seal>,
}

impl SettingsText {
    /// Checks the flags and reads the files that they name. Without a bucket and a directory,
    /// backups go to `default_dir`.
    pub fn read(&self, default_dir: &Path, environment: Environment<'_>) -> Result<Settings, BackupError> {
        let schedule = self.schedule.as_deref().filter(|text| !text.trim().is_empty());
        let schedule = schedule.map(str::parse).transpose().map_err(of("--snapshot-schedule"))?;
        let retention = self.retention.as_deref().map(str::parse).transpose();
        let retention = retention.map_err(of("--snapshot-retention"))?.unwrap_or_default();
        let bucket = self.s3.bucket(environment)?;
        let mut places: Vec<_> = bucket.into_iter().map(Place::Bucket).collect();
        if let Some(dir) = &self.dir {
            places.push(Place::Directory(dir.clone()));
        } else if places.is_empty() {
            places.push(Place::Directory(default_dir.to_owned()));
        }
        let seal = self.passphrase()?.map(Seal::new);
        Ok(Settings { schedule, retention, places, seal })
    }

    /// The passphrase, where a file was named for it.
    pub fn passphrase(&self) -> Result<Option<Passphrase>, BackupError> {
        let read = self.passphrase_file.as_deref().map(Passphrase::from_file).transpose();
        read.map_err(of("--snapshot-passphrase-file"))
    }

    /// What somebody typed for one backup: `s3://bucket/folder/name`, with endpoint and keys from
    /// the flags, or the path of a file.
    pub fn location(&self, text: &str, environment: Environment<'_>) -> Result<Location, BackupError> {
        let Some(address) = text.strip_prefix("s3://") else {
            return Location::file(Path::new(text));
        };
        let parts = address.split_once('/').and_then(|(bucket, path)| {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            (!bucket.is_empty() && !name.is_empty()).then_some((bucket, folder, name))
        });
        let Some((bucket, folder, name)) = parts else {
            return Err(BackupError::setting(format!("\"{text}\" must be s3://bucket/name")));
        };
        let s3 =
            S3Text { bucket: Some(bucket.to_owned()), folder: Some(folder.to_owned()), ..self.s3.clone() };
        let bucket = s3.bucket(environment)?;
        let bucket = bucket.ok_or_else(|| BackupError::setting(format!("\"{text}\" names no bucket")))?;
        Ok(Location { place: Place::Bucket(bucket), name: name.to_owned() })
    }
}

impl S3Text {
    /// The bucket, where one was named; flags that mean nothing without one are refused.
    fn bucket(&self, environment: Environment<'_>) -> Result<Option<Bucket>, BackupError> {
        let Some(bucket) = &self.bucket else {
            return match self.given() {
                Some(flag) => {
                    Err(BackupError::setting(format!("{flag} means nothing without --snapshot-s3-bucket")))
                }
                None => Ok(None),
            };
        };
        let endpoint = self.endpoint.as_deref().map(|text| endpoint(text, self.plain_http)).transpose()?;
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty()).map(Secret::new);
        let lacking = |flag: &str, variable: &str| {
            BackupError::setting(format!("the bucket {bucket} needs {flag} (or the variable {variable})"))
        };
        let access_key = self.access_key.clone().or_else(|| variable("AWS_ACCESS_KEY_ID"));
        let access_key =
            access_key.ok_or_else(|| lacking("--snapshot-s3-access-key", "AWS_ACCESS_KEY_ID"))?;
        let given = self.secret_key()?;
        // A token of the environment belongs to the key there.
        let session_token = if given.is_none() { variable("AWS_SESSION_TOKEN") } else { None };
        let secret_key = given.or_else(|| variable("AWS_SECRET_ACCESS_KEY"));
        let secret_key =
            secret_key.ok_or_else(|| lacking("--snapshot-s3-secret-key", "AWS_SECRET_ACCESS_KEY"))?;
        let settings = BucketSettings {
            endpoint,
            bucket: bucket.clone(),
            region: self.region.clone().unwrap_or_else(|| BucketSettings::REGION.to_owned()),
            folder: self.folder.clone().unwrap_or_default(),
            access_key,
            secret_key,
            session_token,
            ca: self.ca.clone(),
            plain_http: self.plain_http,
            retry_for: BucketSettings::RETRY_FOR,
        };
        Bucket::new(&settings).map(Some).map_err(of("--snapshot-s3"))
    }

    fn secret_key(&self) -> Result<Option<Secret>, BackupError> {
        match (&self.secret_key, &self.secret_key_file) {
            (Some(_), Some(_)) => Err(BackupError::setting(
                "give either --snapshot-s3-secret-key or --snapshot-s3-secret-key-file",
            )),
            (given, None) => Ok(given.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| BackupError::io("reading", &path.display(), source))
                    .map_err(of("--snapshot-s3-secret-key-file"))?;
                Ok(Some(Secret::new(text.trim())))
            }
        }
    }

    /// A flag that was given and is about a bucket.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            (self.endpoint.is_some(), "--snapshot-s3-endpoint"),
            (self.region.is_some(), "--snapshot-s3-region"),
            (self.folder.is_some(), "--snapshot-s3-folder"),
            (self.access_key.is_some(), "--snapshot-s3-access-key"),
            (self.secret_key.is_some(), "--snapshot-s3-secret-key"),
            (self.secret_key_file.is_some(), "--snapshot-s3-secret-key-file"),
            (self.ca.is_some(), "--snapshot-s3-ca"),
            (self.plain_http == PlainHttp::Allow, "--snapshot-s3-insecure"),
        ];
        flags.into_iter().find_map(|(given, flag)| given.then_some(flag))
    }
}

/// A host alone gets the scheme that the flags speak of.
fn endpoint(text: &str, plain_http: PlainHttp) -> Result<Url, BackupError> {
    let scheme = if plain_http == PlainHttp::Allow { "http" } else { "https" };
    let url = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    let parsed = Url::parse(&url).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
    parsed.ok_or_else(|| {
        BackupError::setting(format!("--snapshot-s3-endpoint: \"{text}\" is neither a host nor a URL"))
    })
}

/// Says which flag an error is about.
fn of(flag: &'static str) -> impl Fn(BackupError) -> BackupError {
    move |error| BackupError::setting(format!("{flag}: {}", crate::error::chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn aws(name: &str) -> Option<String> {
        match name {
            "AWS_ACCESS_KEY_ID" => Some("id".into()),
            "AWS_SECRET_ACCESS_KEY" => Some("key".into()),
            _ => None,
        }
    }

    /// A bucket that needs neither certificates of this machine nor a network.
    fn s3() -> S3Text {
        S3Text {
            endpoint: Some("localhost:9000".into()),
            bucket: Some("backups".into()),
            access_key: Some(Secret::new("id")),
            secret_key: Some(Secret::new("key")),
            ca: None,
            plain_http: PlainHttp::Allow,
            ..S3Text::default()
        }
    }

    fn refusal(text: &SettingsText) -> String {
        text.read(Path::new("/d"), &nothing).unwrap_err().to_string()
    }

    #[test]
    fn without_flags_there_is_no_schedule_and_five_are_kept() {
        let settings = SettingsText::default().read(Path::new("/d"), &nothing).unwrap();
        assert!(settings.schedule.is_none() && settings.seal.is_none());
        assert_eq!(settings.retention, Retention::default());
        assert_eq!(settings.places.iter().map(Place::to_string).collect::<Vec<_>>(), ["/d"]);
    }

    #[test]
    fn backups_go_where_the_flags_say() {
        let places = |dir: Option<&str>, s3: S3Text| {
            let text = SettingsText { dir: dir.map(PathBuf::from), s3, ..SettingsText::default() };
            let settings = text.read(Path::new("/d"), &aws).unwrap();
            settings.places.iter().map(Place::to_string).collect::<Vec<_>>()
        };
        assert_eq!(places(Some("/x"), S3Text::default()), ["/x"]);
        assert_eq!(places(None, s3()), ["s3://backups"]);
        let folder = S3Text { folder: Some("a/b".into()), access_key: None, secret_key: None, ..s3() };
        assert_eq!(places(Some("/x"), folder), ["s3://backups/a/b", "/x"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_flag_on_one_line() {
        let with_s3 = |s3| SettingsText { s3, ..SettingsText::default() };
        let schedule = |text: &str| SettingsText { schedule: Some(text.into()), ..SettingsText::default() };
        let table = [
            (schedule("often"), "--snapshot-schedule: \"often\" is not a schedule: "),
            (
                SettingsText { retention: Some("0".into()), ..SettingsText::default() },
                "--snapshot-retention: \"0\" is not",
            ),
            (
                SettingsText { passphrase_file: Some("/nowhere/p".into()), ..SettingsText::default() },
                "--snapshot-passphrase-file: /nowhere/p does not exist",
            ),
            (
                with_s3(S3Text { bucket: None, ..s3() }),
                "--snapshot-s3-endpoint means nothing without --snapshot-s3-bucket",
            ),
            (
                with_s3(S3Text { access_key: None, ..s3() }),
                "the bucket backups needs --snapshot-s3-access-key",
            ),
            (
                with_s3(S3Text { secret_key: None, ..s3() }),
                "the bucket backups needs --snapshot-s3-secret-key",
            ),
            (
                with_s3(S3Text { secret_key_file: Some("/f".into()), ..s3() }),
                "give either --snapshot-s3-secret-key or",
            ),
            (
                with_s3(S3Text { endpoint: Some("http://h".into()), plain_http: PlainHttp::Refuse, ..s3() }),
                "--snapshot-s3: the endpoint http://h cannot be used: plain HTTP",
            ),
            (with_s3(S3Text { endpoint: Some("a b".into()), ..s3() }), "--snapshot-s3-endpoint: \"a b\" is"),
            (
                with_s3(S3Text { ca: Some("/nowhere/ca".into()), ..s3() }),
                "--snapshot-s3: /nowhere/ca does not exist",
            ),
        ];
        for (text, expected) in table {
            let refusal = refusal(&text);
            assert!(refusal.starts_with(expected) && !refusal.contains('\n'), "{refusal}");
        }
    }

    #[test]
    fn one_backup_is_a_path_or_an_address() {
        let text = SettingsText { s3: s3(), ..SettingsText::default() };
        let shown = |at: &str| text.location(at, &nothing).map(|location| location.to_string());
        assert_eq!(shown("/a/b.snapshot").unwrap(), "/a/b.snapshot");
        assert_eq!(shown("b.snapshot").unwrap(), "./b.snapshot");
        assert_eq!(shown("s3://other/n").unwrap(), "s3://other/n");
        assert_eq!(shown("s3://other/a/b/n").unwrap(), "s3://other/a/b/n");
        for bad in ["s3://other", "s3://other/", "s3:///n", "s3://other/a/", "/", ".."] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
