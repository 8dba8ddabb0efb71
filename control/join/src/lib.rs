//! How machines join: tokens, enrolment, certificates, members.
