import HSMControl
import HSMFuseDoor
import HSMSystem

/// One thing that was examined.
package struct Finding: Codable, Sendable, Equatable {
    package enum Verdict: String, Codable, Sendable {
        case ok
        /// Works with limits, or worse than it could.
        case limited
        case missing
    }

    package var name: String
    package var verdict: Verdict
    /// One line: the finding and its consequence.
    package var detail: String

    package init(_ name: String, _ verdict: Verdict, _ detail: String) {
        self.name = name
        self.verdict = verdict
        self.detail = detail
    }
}

/// The kernel's version, as far as features depend on it.
package struct KernelVersion: Comparable, Sendable, CustomStringConvertible {
    package let major: Int
    package let minor: Int

    package init(_ major: Int, _ minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// From uname(2)'s release, such as `6.18.4-1-amd64`; nil when it does not start with two numbers.
    package init?(release: String) {
        let numbers = release.split(separator: ".").prefix(2).map { part in Int(part.prefix { $0.isWholeNumber }) }
        guard numbers.count == 2, let major = numbers[0], let minor = numbers[1] else { return nil }
        self.init(major, minor)
    }

    package var description: String { "\(major).\(minor)" }

    package static func < (left: KernelVersion, right: KernelVersion) -> Bool {
        (left.major, left.minor) < (right.major, right.minor)
    }
}

/// Examines the abilities of this machine and of a lower directory. Leaves nothing behind.
package struct Doctor: Sendable {
    package let kernel: KernelVersion?
    package let release: String
    package let capabilities: Capabilities
    /// `fuse_pkgversion` of the library in use.
    package let libfuse: String

    package init(libfuse: String = LibraryVersion.text) {
        release = SmallFile.text("/proc/sys/kernel/osrelease") ?? "unknown"
        kernel = KernelVersion(release: release)
        capabilities = .effective()
        self.libfuse = libfuse
    }

    /// Examines everything, in the order of the display. The last finding says which front end `mount` will use.
    package func examine(lower: BytePath?) -> [Finding] {
        let lowerDoctor = lower.map { LowerDoctor(path: $0, capabilities: capabilities) }
        let type = lowerDoctor?.type
        let device = fuseDevice()
        let passthrough = Self.passthrough(
            kernel: kernel, mayAdministrate: capabilities.mayAdministrate, lowerType: type)
        var findings = [kernelFinding(), Finding("libfuse", .ok, libfuse), device, passthrough]
        findings += [preContent(lower.flatMap { try? $0.real() }), requestTimeout(), ring()]
        findings += privileges()
        let lowerFindings = lowerDoctor?.findings() ?? []
        findings += lowerFindings
        findings.append(
            Self.verdict(
                device: device, passthrough: passthrough, lower: lowerFindings.filter { $0.verdict == .missing }))
        return findings
    }

    // MARK: Judgements, of facts alone

    /// Whether the kernel will read and write complete files by itself.
    package static func passthrough(kernel: KernelVersion?, mayAdministrate: Bool, lowerType: String?) -> Finding {
        let name = "kernel passthrough"
        guard let kernel, kernel >= KernelVersion(6, 9) else {
            return Finding(
                name, .missing, "needs Linux 6.9 or later; until then complete files are read through the daemon")
        }
        guard mayAdministrate else {
            return Finding(
                name, .missing, "needs CAP_SYS_ADMIN (root); without it complete files are read through the daemon")
        }
        switch lowerType {
        case "overlay":
            return Finding(name, .limited, "works on overlayfs, but no file system can be stacked on the mount")
        case let type? where type.hasPrefix("fuse"):
            return Finding(name, .limited, "does not work if the lower file system uses passthrough itself (\(type))")
        default:
            return Finding(name, .ok, "Linux \(kernel), CAP_SYS_ADMIN")
        }
    }

    /// Predicts what `mount` will do.
    package static func verdict(device: Finding, passthrough: Finding, lower: [Finding]) -> Finding {
        let name = "mount"
        if device.verdict == .missing {
            return Finding(name, .missing, "cannot mount: \(device.name): \(device.detail)")
        }
        if let obstacle = lower.first(where: { LowerDoctor.required.contains($0.name) }) {
            return Finding(name, .missing, "cannot mount: \(obstacle.name): \(obstacle.detail)")
        }
        return switch passthrough.verdict {
        case .ok: Finding(name, .ok, "will use FUSE with kernel passthrough (\(passthrough.detail))")
        case .limited:
            Finding(name, .limited, "will use FUSE, with kernel passthrough if it works (\(passthrough.detail))")
        case .missing: Finding(name, .limited, "will use FUSE without kernel passthrough (\(passthrough.detail))")
        }
    }

    /// Judges `fs.fuse.*_request_timeout`; the values are nil where the kernel has no such limit.
    package static func requestTimeout(default first: Int?, maximum: Int?) -> Finding {
        let name = "FUSE request timeout"
        guard first != nil || maximum != nil else { return Finding(name, .ok, "the kernel has none") }
        let set = [first, maximum].compactMap { $0 }.filter { $0 > 0 }.min()
        guard let set else { return Finding(name, .ok, "not set") }
        return Finding(
            name, .limited,
            "\(set) s: the kernel would end the mount at a request that takes longer, so fills fail two seconds before")
    }
}
