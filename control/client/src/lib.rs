//! The API's clients: in-process kube client, shared informers, work queues, events.
