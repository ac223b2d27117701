import HSMSystem

/// What a daemon leaves in the registry about itself: `info.json`.
package struct DaemonInfo: Codable, Sendable, Equatable {
    package var pid: Int32
    /// In clock ticks since boot: tells a process from a later one with the same id.
    package var startTime: UInt64
    /// Canonical.
    package var mountpoint: BytePath
    /// Canonical.
    package var lower: BytePath
    package var frontEnd: FrontEndKind

    package init(pid: Int32, startTime: UInt64, mountpoint: BytePath, lower: BytePath, frontEnd: FrontEndKind) {
        self.pid = pid
        self.startTime = startTime
        self.mountpoint = mountpoint
        self.lower = lower
        self.frontEnd = frontEnd
    }

    /// Of this process.
    package init(mountpoint: BytePath, lower: BytePath, frontEnd: FrontEndKind) {
        let pid = OwnProcess.id
        self.init(
            pid: pid, startTime: ProcessHandle.startTime(of: pid) ?? 0, mountpoint: mountpoint, lower: lower,
            frontEnd: frontEnd)
    }

    /// Whether the process is still there.
    package var isAlive: Bool { ProcessHandle.startTime(of: pid) == startTime }
}
