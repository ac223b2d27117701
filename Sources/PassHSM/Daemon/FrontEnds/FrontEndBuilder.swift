import HSMControl
import HSMCore
import HSMStore
import HSMSystem
import Logging

/// A front end before its mount, when there is no store yet: the choice is made, and what was found for it is kept.
package protocol FrontEndBuilder: Sendable {
    var kind: FrontEndKind { get }
    /// Where to open the lower directory when something covers its path; nil: by its path.
    var lowerPath: BytePath? { get }
    /// What limits every fill's time beside the deadline; nil: nothing.
    func longestWait(log: Logger) -> Duration?
    /// To be called before files of the lower directory are opened, with the daemon's own way to it.
    func prepare(_ directory: LowerDirectory) throws(Errno)
    /// Makes the front end; nothing is mounted yet.
    func build(_ parts: FrontEndParts) throws(Errno) -> any FrontEnd
    /// What the user is told of the choice, and of these settings; empty: nothing.
    func remark(with settings: MountSettings) -> String
}

/// What front ends are made of.
package struct FrontEndParts: Sendable {
    package let configuration: DaemonConfiguration
    /// The settings in force.
    package let settings: MountSettings
    /// The remote may be anybody's: the mount is nosuid and nodev.
    package let withholdsRights: Bool
    package let store: Store
    package let engine: FillEngine
    /// Runs what may block.
    package let pool: BlockingPool
    package let log: Logger
    /// What a user has to know of the directory as a whole.
    package let warning: String?
}
