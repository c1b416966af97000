//! Who cleans up after a run, however it ends.
//!
//! A shell that is told what was made (namespaces, directories) and waits for its input to end: because the run is over,
//! because it panicked, or because it was killed. Then it kills what still runs in those namespaces and removes everything.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};

const SCRIPT: &str = r#"
namespaces= directories=
while read -r what name; do
  case $what in
    namespace) namespaces="$namespaces $name";;
    directory) directories="$directories $name";;
  esac
done
for n in $namespaces; do
  for p in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$p" 2>/dev/null; done
done
for n in $namespaces; do
  for i in 1 2 3 4 5 6 7 8 9 10; do [ -z "$(ip netns pids "$n" 2>/dev/null)" ] && break; sleep 0.1; done
  ip netns del "$n" 2>/dev/null
done
for d in $directories; do rm -rf -- "$d"; done
"#;

/// The shell. Dropped, it has cleaned up when the drop returns.
#[derive(Debug)]
pub struct Guardian {
    shell: Mutex<Child>,
}

impl Guardian {
    /// Starts one, in a process group of its own so that Ctrl-C does not reach it.
    ///
    /// # Errors
    /// No shell.
    pub fn start() -> Result<Self> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting /bin/sh")?;
        Ok(Self { shell: Mutex::new(shell) })
    }

    /// Has a namespace removed in the end, and what runs in it killed.
    ///
    /// # Errors
    /// The guardian is gone.
    pub fn watch_namespace(&self, name: &str) -> Result<()> {
        self.tell(&format!("namespace {name}\n"))
    }

    /// Has a directory removed in the end.
    ///
    /// # Errors
    /// The guardian is gone, or the path has white space or is not UTF-8.
    pub fn watch_directory(&self, path: &Path) -> Result<()> {
        let path = path.to_str().filter(|p| !p.contains(char::is_whitespace));
        self.tell(&format!("directory {}\n", path.context("a path without white space is wanted")?))
    }

    fn tell(&self, line: &str) -> Result<()> {
        let mut shell = self.shell.lock().map_err(|_| anyhow::anyhow!("guardian lost"))?;
        let input = shell.stdin.as_mut().context("the guardian has been dismissed")?;
        input.write_all(line.as_bytes()).context("telling the guardian")
    }

    /// Has everything removed now; returns when that is done.
    pub fn dismiss(&self) {
        if let Ok(mut shell) = self.shell.lock() {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.dismiss();
    }
}
