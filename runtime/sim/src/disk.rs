//! Bytes that really reach a disk: a private ext4 on a loop device, whose sector counts the
//! kernel keeps. (A process's own `write_bytes` counts whole page-cache folios.)

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::node::BenchError;

/// A mounted file system of its own; unmounted when dropped.
pub(crate) struct PrivateDisk {
    directory: TempDir,
    device: String,
}

impl PrivateDisk {
    /// Makes and mounts one that is large enough for any benchmark; needs root.
    pub(crate) fn mount() -> Result<Self, BenchError> {
        Self::mount_sized(2 << 30)
    }

    /// Makes and mounts one of so many bytes; needs root.
    pub(crate) fn mount_sized(bytes: u64) -> Result<Self, BenchError> {
        let directory = tempfile::tempdir()?;
        let image = directory.path().join("image");
        std::fs::File::create(&image)?.set_len(bytes)?;
        // Lazy initialisation would write in the background while we measure.
        let eager = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q".as_ref(), "-E".as_ref(), eager.as_ref(), image.as_ref()])?;
        let mount = directory.path().join("mount");
        std::fs::create_dir(&mount)?;
        run("mount", &["-o".as_ref(), "loop,noatime".as_ref(), image.as_ref(), mount.as_ref()])?;
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let path = mount.to_string_lossy().into_owned();
        let device = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&path));
        let device = device.and_then(|line| line.split(' ').next()?.strip_prefix("/dev/")).map(str::to_owned);
        let device = device.ok_or_else(|| BenchError::Failed("the mount is not listed".to_owned()))?;
        Ok(Self { directory, device })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mount/data")
    }

    /// The root of the file system.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// The device's number, `major:minor`.
    pub(crate) fn device_number(&self) -> Result<String, BenchError> {
        let number = std::fs::read_to_string(Path::new("/sys/block").join(&self.device).join("dev"))?;
        Ok(number.trim().to_owned())
    }

    /// Sends what waits in the kernel to the device.
    pub(crate) fn sync(&self) -> Result<(), BenchError> {
        let root = std::fs::File::open(self.directory.path().join("mount"))?;
        Ok(rustix::fs::syncfs(&root).map_err(std::io::Error::from)?)
    }

    /// Bytes written to the device so far.
    pub(crate) fn written(&self) -> Result<u64, BenchError> {
        let stat = std::fs::read_to_string(Path::new("/sys/block").join(&self.device).join("stat"))?;
        let sectors: Option<u64> = stat.split_whitespace().nth(6).and_then(|field| field.parse().ok());
        sectors.map(|sectors| sectors * 512).ok_or_else(|| BenchError::Failed("no sector count".to_owned()))
    }
}

impl Drop for PrivateDisk {
    fn drop(&mut self) {
        let mount = self.directory.path().join("mount");
        if let Err(error) = run("umount", &[mount.as_ref()]) {
            println!("{} stays mounted: {error}", mount.display());
        }
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), BenchError> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(BenchError::Failed(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
