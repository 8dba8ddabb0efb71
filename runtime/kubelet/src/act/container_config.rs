//! From a container of the pod to what the runtime makes it from.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use sampan_api::quantity::Quantity;
use sampan_client::EventType;
use sampan_cri::{ContainerConfig, ContainerPort, ContainerResources, ImageInfo, Mount};

use crate::context::Context;
use crate::env::build::{Built, Inputs};
use crate::env::{self, Wanted};
use crate::pod::{resources, spec};
use crate::volumes::{MountedVolumes, subpath};

/// What is made from the pod and its surroundings for one container.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// How many came before it.
    pub attempt: u32,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// The pod's volumes.
    pub volumes: &'a MountedVolumes,
}

/// Puts the configuration together. The error is the message of `CreateContainerConfigError`.
pub async fn build(
    context: &Context,
    request: Request<'_>,
    image: &ImageInfo,
) -> Result<ContainerConfig, String> {
    let Request { pod, container, attempt, .. } = request;
    let wanted = Wanted::of_container(container);
    let refs = context.objects.fetch(spec::namespace(pod), &wanted).await?;
    let services = services(context);
    let inputs = Inputs {
        pod,
        facts: &context.facts(request.addresses),
        refs: &refs,
        services: &services,
        allocatable: &context.allocatable,
    };
    let built = env::build(container, inputs)?;
    for message in &built.skipped {
        context.tell(pod, None, EventType::Warning, "InvalidEnvironmentVariableNames", message);
    }
    let mounts = mounts(context, request, &built)?;
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        image_id: image.id.clone(),
        image: container.image.clone().unwrap_or_default(),
        command: built.command,
        args: built.args,
        env: built.env,
        working_dir: container.working_dir.clone().filter(|directory| !directory.is_empty()),
        mounts,
        resources: limits(container),
        ports: container.ports.iter().flatten().filter_map(port).collect(),
        stdin: container.stdin == Some(true),
        read_only_root: container
            .security_context
            .as_ref()
            .and_then(|security| security.read_only_root_filesystem)
            .unwrap_or(false),
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        annotations: pod
            .metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(key, _)| key.starts_with("sampan.dev/"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    })
}

fn limits(container: &Container) -> ContainerResources {
    let millis = |amount: Quantity| u64::try_from(amount.milli_value()).ok().filter(|n| *n > 0);
    let units = |amount: Quantity| u64::try_from(amount.value()).ok().filter(|n| *n > 0);
    ContainerResources {
        cpu_limit_millis: resources::limit(container, "cpu").and_then(millis),
        cpu_request_millis: resources::request(container, "cpu").and_then(millis),
        memory_limit_bytes: resources::limit(container, "memory").and_then(units),
    }
}

fn port(port: &k8s_openapi::api::core::v1::ContainerPort) -> Option<ContainerPort> {
    Some(ContainerPort {
        name: port.name.clone(),
        container_port: u16::try_from(port.container_port).ok()?,
        host_port: port.host_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
    })
}

/// Variables that lead to services: so far the API's own.
fn services(context: &Context) -> Vec<(String, String)> {
    let Some((host, port)) = &context.config.api_service else { return Vec::new() };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let address = format!("tcp://{bracketed}:{port}");
    [
        ("KUBERNETES_SERVICE_HOST", host.clone()),
        ("KUBERNETES_SERVICE_PORT", port.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", port.to_string()),
        ("KUBERNETES_PORT", address.clone()),
        (&format!("KUBERNETES_PORT_{port}_TCP"), address),
        (&format!("KUBERNETES_PORT_{port}_TCP_PROTO"), "tcp".into()),
        (&format!("KUBERNETES_PORT_{port}_TCP_PORT"), port.to_string()),
        (&format!("KUBERNETES_PORT_{port}_TCP_ADDR"), host.clone()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn mounts(context: &Context, request: Request<'_>, built: &Built) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, wanted) in request.container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(mount(context, request, built, wanted, index)?);
    }
    let path = request.container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let covered = mounts.iter().find(|mount| std::path::Path::new(path).starts_with(&mount.container_path));
    if let Some(volume) = covered {
        let message = format!(
            "Container {}: its terminationMessagePath {path} lies in the volume mounted at {} and is not read",
            request.container.name, volume.container_path
        );
        context.tell(request.pod, None, EventType::Warning, "TerminationMessageUnavailable", message);
    } else if !path.is_empty() {
        let file = context.paths.termination_message(
            spec::uid(request.pod),
            &request.container.name,
            request.attempt,
        );
        make_file(&file).map_err(|error| format!("cannot make the termination message's file: {error}"))?;
        mounts.push(Mount { container_path: path.to_owned(), host_path: file, read_only: false });
    }
    Ok(mounts)
}

fn make_file(path: &std::path::Path) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(path)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

fn mount(
    context: &Context,
    request: Request<'_>,
    built: &Built,
    wanted: &VolumeMount,
    index: usize,
) -> Result<Mount, String> {
    let volume = request
        .volumes
        .get(&wanted.name)
        .ok_or_else(|| format!("volume \"{}\" is not mounted", wanted.name))?;
    let part = match (&wanted.sub_path, &wanted.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        (_, Some(expression)) if !expression.is_empty() => Some(sub_path_expr(expression, built)?),
        _ => None,
    };
    let host_path = match part {
        None => volume.path.clone(),
        Some(part) => {
            let copy =
                context.paths.subpath(spec::uid(request.pod), &wanted.name, &request.container.name, index);
            subpath::resolve(volume, &part, &copy)?
        }
    };
    Ok(Mount {
        container_path: wanted.mount_path.clone(),
        host_path,
        read_only: volume.read_only || wanted.read_only == Some(true),
    })
}

/// A part named with variables, all of which must be known.
fn sub_path_expr(expression: &str, built: &Built) -> Result<String, String> {
    let missing = std::cell::RefCell::new(Vec::new());
    let path = env::expand(expression, |name| {
        let value = built.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        if value.is_none() {
            missing.borrow_mut().push(name.to_owned());
        }
        value
    });
    let missing = missing.into_inner();
    if missing.is_empty() {
        Ok(path)
    } else {
        Err(format!("missing value for \"{}\"", missing.join("\", \"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_needs_all_its_variables() {
        let built = Built { env: vec![("POD".into(), "p-1".into())], ..Default::default() };
        assert_eq!(sub_path_expr("logs/$(POD)", &built), Ok("logs/p-1".into()));
        assert_eq!(sub_path_expr("$(NOPE)/x", &built), Err("missing value for \"NOPE\"".into()));
    }
}
