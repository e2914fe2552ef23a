//! What mosquitto.conf says about users and access.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// What is of interest in a configuration.
#[derive(Debug, Default, PartialEq)]
pub struct Conf {
    pub passwords: Option<PathBuf>,
    pub acl: Option<PathBuf>,
    /// Whether clients without a user name are let in, where it says so.
    pub anonymous: Option<bool>,
    /// What decides about clients there and is not imported.
    pub notes: Vec<String>,
}

/// Options that decide who gets in or what a client may do, beside the two files.
const OTHERS: &[&str] = &[
    "psk_file",
    "use_identity_as_username",
    "use_subject_as_username",
    "use_username_as_clientid",
    "clientid_prefixes",
];
const PLUGINS: &[&str] = &["plugin", "auth_plugin", "global_plugin"];
/// The plugins of version 2.1 that read the two files.
const OUR_PLUGINS: [&str; 2] = ["mosquitto_acl_file", "mosquitto_password_file"];

impl Conf {
    /// Reads a configuration, and those of its `include_dir`. Relative paths in it count from
    /// its own directory.
    ///
    /// # Errors
    /// One line: what cannot be read, or what names more files than one.
    pub fn read(path: &Path) -> anyhow::Result<Conf> {
        let mut conf = Conf::default();
        conf.read_into(path, path.parent().unwrap_or(Path::new("")), true)?;
        Ok(conf)
    }

    fn read_into(&mut self, path: &Path, base: &Path, main: bool) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (option, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            let place = || format!("{}:{number}", path.display());
            match option {
                "password_file" | "plugin_opt_password_file" => {
                    set(&mut self.passwords, base.join(value))
                        .with_context(|| format!("{}: name one with --passwords", place()))?;
                }
                "acl_file" | "plugin_opt_acl_file" => {
                    set(&mut self.acl, base.join(value))
                        .with_context(|| format!("{}: name one with --acl", place()))?;
                }
                "allow_anonymous" => self.anonymous = Some(value == "true"),
                "include_dir" if main => {
                    for file in configurations(&base.join(value))? {
                        self.read_into(&file, base, false)?;
                    }
                }
                "per_listener_settings" if value == "true" => self.notes.push(format!(
                    "{}: users and rules hold for all listeners here, not for one each",
                    place()
                )),
                _ if OTHERS.contains(&option) => {
                    self.notes.push(format!("{}: {option} is not imported", place()));
                }
                _ if PLUGINS.contains(&option)
                    && !OUR_PLUGINS.iter().any(|ours| value.contains(ours)) =>
                {
                    self.notes.push(format!("{}: what {value} decides is not imported", place()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn set(file: &mut Option<PathBuf>, path: PathBuf) -> anyhow::Result<()> {
    match file.replace(path) {
        Some(first) if file.as_ref() != Some(&first) => {
            bail!("a second file beside {}", first.display())
        }
        _ => Ok(()),
    }
}

/// The files of a directory that mosquitto reads, in its order.
fn configurations(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let unreadable = || format!("include_dir {} cannot be read", dir.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> (tempfile::TempDir, anyhow::Result<Conf>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let conf = Conf::read(&dir.path().join("mosquitto.conf"));
        (dir, conf)
    }

    #[test]
    fn finds_the_files_also_in_an_included_directory() {
        let (dir, conf) = read(&[
            ("mosquitto.conf", "# acl_file no\ninclude_dir conf.d\nallow_anonymous false\n"),
            (
                "conf.d/a.conf",
                "password_file  passwords\r\nplugin /usr/lib/mosquitto_acl_file.so\n",
            ),
            ("conf.d/b.conf", "plugin_opt_acl_file /etc/acl\nplugin /lib/dynsec.so\n"),
            ("conf.d/c.conf~", "allow_anonymous true\n"),
        ]);
        let conf = conf.unwrap();
        assert_eq!(conf.passwords, Some(dir.path().join("passwords")));
        assert_eq!(conf.acl, Some("/etc/acl".into()));
        assert_eq!((conf.anonymous, conf.notes.len()), (Some(false), 1));
        assert!(conf.notes[0].contains("b.conf:2") && conf.notes[0].contains("dynsec.so"));
    }

    #[test]
    fn says_what_is_not_imported_and_what_is_too_much() {
        let (_dir, conf) = read(&[(
            "mosquitto.conf",
            "per_listener_settings true\nuse_identity_as_username true\npsk_file x\nacl_file a\n",
        )]);
        assert_eq!(conf.unwrap().notes.len(), 3);
        let (_dir, conf) = read(&[("mosquitto.conf", "acl_file a\nlistener 1884\nacl_file b\n")]);
        let error = format!("{:#}", conf.unwrap_err());
        assert!(error.contains("mosquitto.conf:3") && error.contains("--acl"), "{error}");
        let (_dir, conf) = read(&[("mosquitto.conf", "include_dir nowhere\n")]);
        assert!(format!("{:#}", conf.unwrap_err()).contains("nowhere"));
    }
}
