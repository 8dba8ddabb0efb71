//! The scheduler: queue, snapshot, framework, plugins, pure schedule().
