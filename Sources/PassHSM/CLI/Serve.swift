/// Serves a mount in this process until it is unmounted.
func serve(_ options: MountOptions, readiness: Readiness) throws {
    throw CommandError("this build has no file system to mount \(options.lower) with")
}
