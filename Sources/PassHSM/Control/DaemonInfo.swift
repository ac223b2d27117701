import HSMSystem

/// A daemon's facts about itself in the registry: `info.json`.
package struct DaemonInfo: Codable, Sendable, Equatable {
    package var pid: Int32
    /// In clock ticks since boot. It tells the process from a later one with the same id.
    package var startTime: UInt64
    /// A canonical path.
    package var mountpoint: BytePath
    /// A canonical path.
    package var lower: BytePath
    package var frontEnd: FrontEndKind

    package init(pid: Int32, startTime: UInt64, mountpoint: BytePath, lower: BytePath, frontEnd: FrontEndKind) {
        self.pid = pid
        self.startTime = startTime
        self.mountpoint = mountpoint
        self.lower = lower
        self.frontEnd = frontEnd
    }

    /// The facts about this process.
    package init(mountpoint: BytePath, lower: BytePath, frontEnd: FrontEndKind) {
        let pid = OwnProcess.id
        self.init(
            pid: pid, startTime: ProcessHandle.startTime(of: pid) ?? 0, mountpoint: mountpoint, lower: lower,
            frontEnd: frontEnd)
    }

    /// Whether the process is still there.
    package var isAlive: Bool { ProcessHandle.startTime(of: pid) == startTime }
}
