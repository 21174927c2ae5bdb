//! Images to root file systems, the shim, containers, cgroups. The only unsafe code.
