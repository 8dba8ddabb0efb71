//! Having an image before its container is made, as the pull policy says.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_client::EventType;
use sampan_cri::{ImageError, ImageInfo};

use super::credentials;
use crate::context::Context;
use crate::pod::memory::FailureKind;

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always.
    Always,
    /// When it is not there.
    IfNotPresent,
    /// Never.
    Never,
}

/// A container's policy. Without one: `Always` for `:latest` and untagged names.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or(image);
            let pinned = image.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest");
            if pinned { PullPolicy::IfNotPresent } else { PullPolicy::Always }
        }
    }
}

/// Why there is no image.
pub type NoImage = (FailureKind, String);

/// Makes sure that the node has the container's image; tells people what it does.
pub async fn ensure(context: &Context, pod: &Pod, container: &Container) -> Result<ImageInfo, NoImage> {
    let image = container.image.as_deref().unwrap_or_default();
    let tell =
        |kind, reason: &str, message: String| context.tell(pod, Some(&container.name), kind, reason, message);
    let held = match context.config.images.status(image).await {
        Ok(held) => held,
        Err(error) => {
            let (kind, message) = classify(image, error);
            if kind == FailureKind::ImageName {
                let message = format!("Failed to apply default image tag \"{image}\": {message}");
                tell(EventType::Warning, "InspectFailed", message.clone());
                return Err((kind, message));
            }
            let message = format!("Failed to inspect image \"{image}\": {message}");
            tell(EventType::Warning, "InspectFailed", message.clone());
            return Err((FailureKind::ImageInspect, message));
        }
    };
    match (pull_policy(container), held) {
        (PullPolicy::Always, _) | (PullPolicy::IfNotPresent, None) => pull(context, pod, container).await,
        (_, Some(held)) => {
            let message = format!("Container image \"{image}\" already present on machine");
            tell(EventType::Normal, "Pulled", message);
            Ok(held)
        }
        (PullPolicy::Never, None) => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            tell(EventType::Warning, "ErrImageNeverPull", message.clone());
            Err((FailureKind::NeverPull, message))
        }
    }
}

async fn pull(context: &Context, pod: &Pod, container: &Container) -> Result<ImageInfo, NoImage> {
    let image = container.image.as_deref().unwrap_or_default();
    let tell =
        |kind, reason: &str, message: String| context.tell(pod, Some(&container.name), kind, reason, message);
    tell(EventType::Normal, "Pulling", format!("Pulling image \"{image}\""));
    let credentials = credentials::of_pod(context, pod, image).await;
    let begun = Instant::now();
    match context.config.images.pull(image, &credentials).await {
        Ok(info) => {
            let took = duration(begun.elapsed());
            tell(
                EventType::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {} bytes.",
                    info.size_bytes
                ),
            );
            Ok(info)
        }
        Err(error) => {
            let (kind, message) = classify(image, error);
            tell(EventType::Warning, "Failed", format!("Failed to pull image \"{image}\": {message}"));
            Err((kind, message))
        }
    }
}

fn classify(image: &str, error: ImageError) -> NoImage {
    match error {
        ImageError::InvalidName { .. } => (
            FailureKind::ImageName,
            format!("couldn't parse image name \"{image}\": invalid reference format"),
        ),
        ImageError::Unsupported { why, .. } => (FailureKind::ImageInspect, why),
        ImageError::Pull { why, .. } => (FailureKind::Pull, why),
        ImageError::Store(why) => (FailureKind::Pull, why),
    }
}

/// A duration as Go prints it, to the millisecond.
fn duration(time: std::time::Duration) -> String {
    let millis = time.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_a_fixed_tag_are_always_pulled_by_default() {
        for (image, policy, want) in [
            ("a", None, PullPolicy::Always),
            ("a:latest", None, PullPolicy::Always),
            ("host:5000/a", None, PullPolicy::Always),
            ("a:1", None, PullPolicy::IfNotPresent),
            ("host:5000/a:1", None, PullPolicy::IfNotPresent),
            ("a@sha256:00", None, PullPolicy::IfNotPresent),
            ("a", Some("Never"), PullPolicy::Never),
            ("a:1", Some("Always"), PullPolicy::Always),
        ] {
            let container = Container {
                image: Some(image.into()),
                image_pull_policy: policy.map(Into::into),
                ..Default::default()
            };
            assert_eq!(pull_policy(&container), want, "{image} {policy:?}");
        }
    }

    #[test]
    fn durations_are_short() {
        let millis = std::time::Duration::from_millis;
        assert_eq!(duration(millis(7)), "7ms");
        assert_eq!(duration(millis(1230)), "1.23s");
        assert_eq!(duration(millis(2000)), "2s");
    }
}
