//! Arguments and environment of a guest, from the pod's spec and the image's configuration.

use sampan_cri::ContainerConfig;

/// What the image says about how it is run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ImageDefaults<'a> {
    /// The image's entrypoint.
    pub entrypoint: &'a [String],
    /// The image's command.
    pub cmd: &'a [String],
    /// The image's environment, `NAME=value`.
    pub env: &'a [String],
    /// The image's working directory.
    pub working_dir: Option<&'a str>,
}

/// The guest's arguments, argument 0 first: the pod's `command` and `args` replace the image's
/// entrypoint and command as Kubernetes defines it; where no program is named, the image's
/// name stands in.
#[must_use]
pub(crate) fn arguments(config: &ContainerConfig, image: ImageDefaults<'_>) -> Vec<String> {
    let (program, rest) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (config.command.as_slice(), config.args.as_slice()),
        (true, false) => (image.entrypoint, config.args.as_slice()),
        (true, true) => (image.entrypoint, image.cmd),
    };
    let mut arguments = program.to_vec();
    if arguments.is_empty() {
        arguments.push(program_name(&config.image));
    }
    arguments.extend_from_slice(rest);
    arguments
}

/// The last part of an image's name, without tag and digest.
fn program_name(image: &str) -> String {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last).to_owned()
}

/// The guest's environment: `HOSTNAME`, the image's, the pod's; each name once, at its first
/// place with its last value.
#[must_use]
pub(crate) fn environment(
    config: &ContainerConfig,
    image: ImageDefaults<'_>,
    hostname: &str,
) -> Vec<(String, String)> {
    let own = std::iter::once(("HOSTNAME".to_owned(), hostname.to_owned()));
    let images = image.env.iter().map(|entry| match entry.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (entry.clone(), String::new()),
    });
    let mut environment: Vec<(String, String)> = Vec::new();
    for (name, value) in own.chain(images).chain(config.env.iter().cloned()) {
        match environment.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => environment.push((name, value)),
        }
    }
    environment
}

/// The working directory, absolute.
#[must_use]
pub(crate) fn working_directory(config: &ContainerConfig, image: ImageDefaults<'_>) -> String {
    let named = config.working_dir.as_deref().or(image.working_dir).filter(|dir| !dir.is_empty());
    match named {
        Some(dir) if dir.starts_with('/') => dir.to_owned(),
        Some(dir) => format!("/{dir}"),
        None => "/".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(command: &[&str], args: &[&str]) -> ContainerConfig {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        ContainerConfig {
            name: "c".into(),
            attempt: 0,
            image_id: "sha256:0".into(),
            image: "docker.io/sampan/hello:latest".into(),
            command: own(command),
            args: own(args),
            env: vec![],
            working_dir: None,
            mounts: vec![],
            resources: sampan_cri::ContainerResources::default(),
            ports: vec![],
            stdin: false,
            read_only_root: false,
            log_path: "c/0.log".into(),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn command_and_args_replace_the_images_as_kubernetes_defines_it() {
        let entrypoint = ["/app.wasm".to_owned()];
        let cmd = ["serve".to_owned()];
        let image = ImageDefaults { entrypoint: &entrypoint, cmd: &cmd, ..Default::default() };
        let bare = ImageDefaults::default();
        type Case<'a> = (&'a [&'a str], &'a [&'a str], ImageDefaults<'a>, &'a [&'a str]);
        let cases: [Case<'_>; 6] = [
            (&[], &[], image, &["/app.wasm", "serve"]),
            (&[], &["-x"], image, &["/app.wasm", "-x"]),
            (&["ls"], &[], image, &["ls"]),
            (&["ls"], &["-l"], image, &["ls", "-l"]),
            (&[], &[], bare, &["hello"]),
            (&[], &["a"], bare, &["hello", "a"]),
        ];
        for (command, args, image, expected) in cases {
            assert_eq!(arguments(&config(command, args), image), expected, "{command:?} {args:?}");
        }
    }

    #[test]
    fn the_image_names_the_program_where_nothing_else_does() {
        for (image, name) in [
            ("docker.io/sampan/hello:latest", "hello"),
            ("localhost:5000/a/b@sha256:00", "b"),
            ("localhost:5000/tool:v1@sha256:00", "tool"),
            ("plain", "plain"),
        ] {
            assert_eq!(program_name(image), name);
        }
    }

    #[test]
    fn the_last_value_of_a_variable_wins_at_its_first_place() {
        let mut config = config(&[], &[]);
        config.env = vec![("B".into(), "2".into()), ("A".into(), "pod".into()), ("B".into(), "3".into())];
        let env = ["A=image".to_owned(), "EMPTY".to_owned()];
        let image = ImageDefaults { env: &env, ..Default::default() };
        let pairs = environment(&config, image, "web-0");
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("HOSTNAME", "web-0"), ("A", "pod"), ("EMPTY", ""), ("B", "3")]);
    }

    #[test]
    fn the_working_directory_is_absolute() {
        let mut config = config(&[], &[]);
        assert_eq!(working_directory(&config, ImageDefaults::default()), "/");
        let image = ImageDefaults { working_dir: Some("srv"), ..Default::default() };
        assert_eq!(working_directory(&config, image), "/srv");
        config.working_dir = Some("/data".into());
        assert_eq!(working_directory(&config, image), "/data");
    }
}
