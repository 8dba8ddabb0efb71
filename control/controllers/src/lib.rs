//! Kubernetes controllers: a pure plan() and a thin act() each.
