import HSMControl
import HSMCore
import HSMStore
import HSMSystem
import Logging

/// A front end before its mount, while there is no store yet. It is chosen already, and the builder keeps the findings
/// for it.
package protocol FrontEndBuilder: Sendable {
    var kind: FrontEndKind { get }
    /// The path to open the lower directory by when a mount covers its own path; nil: its own path.
    var lowerPath: BytePath? { get }
    /// The limit for every fill's time beside the deadline; nil: none.
    func maxWait(log: Logger) -> Duration?
    /// To be called before files of the lower directory are opened, with the daemon's own way to it.
    func prepare(_ directory: LowerDirectory) throws(Errno)
    /// Makes the front end; nothing is mounted yet.
    func build(_ parts: FrontEndParts) throws(Errno) -> any FrontEnd
    /// Text for the user about the choice and these settings; may be empty.
    func remark(with settings: MountSettings) -> String
}

/// The parts that front ends are made of.
package struct FrontEndParts: Sendable {
    package let configuration: DaemonConfiguration
    /// The settings in force.
    package let settings: MountSettings
    /// Any user may control the remote: the mount is nosuid and nodev.
    package let withholdsRights: Bool
    package let store: Store
    package let engine: FillEngine
    /// Runs what may block.
    package let pool: BlockingPool
    package let log: Logger
    /// A warning for the user about the directory as a whole.
    package let warning: String?
}
