import HSMSystem

/// Carries the kernel's requests to a ``Connection``, and its replies back. Safe on every thread.
package protocol Transport: AnyObject, Sendable {
    /// Sends a reply, or with `unique` 0 a notification.
    ///
    /// - Parameters:
    ///   - unique: the number of the request.
    ///   - code: 0 or a negated errno; for a notification its kind (fuse_notify_code).
    /// - Returns: whether the kernel took it. It no longer wants the reply to a request whose thread was killed.
    func send(_ unique: UInt64, _ code: Int32, _ payload: UnsafeRawBufferPointer) -> Bool

    /// Called when the reply to INIT was sent and the handler knows of it.
    func didConnect()

    /// Registers a lower file for passthrough (FUSE_DEV_IOC_BACKING_OPEN). The kernel reads and writes it with the
    /// credentials of the calling thread.
    ///
    /// - Parameter file: a descriptor of the file; O_PATH is enough.
    /// - Returns: the id for the reply to OPEN. It stays registered until ``closeBacking(_:)``.
    func openBacking(_ file: Int32) throws(Errno) -> Int32

    /// Gives up an id. The kernel keeps the file for the handles that are open with it.
    func closeBacking(_ id: Int32)
}
