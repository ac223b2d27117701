import Glibc
import HSMControl
import HSMSystem

/// Examines a lower directory. Its test file has no name, and is gone when it is closed.
package struct LowerDoctor {
    /// The names of findings that a mount cannot do without.
    package static let required: Set<String> = ["lower directory", "extended attributes"]

    private let path: BytePath
    private let capabilities: Capabilities
    private let failure: Errno?
    /// Nil when the lower directory cannot be opened.
    let directory: Descriptor?
    /// `ext4`, `xfs` ...; nil where it is not known.
    package let type: String?

    package init(path: BytePath, capabilities: Capabilities) {
        self.path = path
        self.capabilities = capabilities
        do throws(Errno) {
            let directory = try path.withCString { name throws(Errno) in
                try Descriptor.open(name, O_RDONLY | O_DIRECTORY)
            }
            self.directory = directory
            failure = nil
            type = Self.type(of: directory)
        } catch {
            (directory, failure, type) = (nil, error, nil)
        }
    }

    /// The type of the mount that `directory` is on, by the kernel's mount table.
    private static func type(of directory: Descriptor) -> String? {
        guard let real = try? directory.withProcPath({ path throws(Errno) in try BytePath(cString: path).readLink() }),
            let entries = try? MountTable.entries()
        else { return nil }
        return entries.enumerated().filter { $0.element.mountpoint.contains(real) }
            .max { ($0.element.mountpoint.bytes.count, $0.offset) < ($1.element.mountpoint.bytes.count, $1.offset) }?
            .element.type
    }

    package func findings() -> [Finding] {
        guard let directory else {
            return [Finding("lower directory", .missing, "\(path): \(failure?.text ?? "")")]
        }
        var findings = [Finding("lower directory", .ok, "\(path) on \(type ?? "an unknown file system")")]
        findings += [space(directory), handles(directory)]
        let probe: Descriptor
        do throws(Errno) {
            probe = try directory.openUnnamed()
            findings.append(Finding("O_TMPFILE", .ok, "files can be created without a name"))
        } catch {
            findings.append(Finding("O_TMPFILE", .limited, "\(error.text)"))
            do throws(Errno) {
                probe = try Self.openUnlinked(in: directory)
            } catch {
                findings.append(Finding("writing", .missing, "no file can be created: \(error.text)"))
                return findings
            }
        }
        findings += [attributes(probe), acls(probe), punchHole(probe), seekData(probe), largestFile(probe)]
        findings.append(reflink(probe, in: directory))
        return findings
    }

    private static func openUnlinked(in directory: Descriptor) throws(Errno) -> Descriptor {
        let name = ".passhsm-doctor-\(OwnProcess.id)"
        let file = try Descriptor.open(at: directory.raw, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        unlinkat(directory.raw, name, 0)
        return file
    }

    // MARK: One by one

    private func space(_ directory: Descriptor) -> Finding {
        guard let facts = try? directory.fileSystem() else { return Finding("free space", .limited, "unknown") }
        let detail = "\(TextTable.size(facts.availableBytes)) of \(TextTable.size(facts.totalBytes))"
        return Finding("free space", facts.availableBytes > 64 << 20 ? .ok : .limited, detail)
    }

    private func handles(_ directory: Descriptor) -> Finding {
        let name = "file handles"
        do throws(Errno) {
            let handle = try FileHandle(of: directory)
            _ = try handle.open(on: directory, O_RDONLY | O_DIRECTORY)
            return Finding(name, .ok, "\(handle.bytes.count) bytes, and can be opened")
        } catch {
            let reason = capabilities.mayOpenHandles ? "" : "needs CAP_DAC_READ_SEARCH: "
            return Finding(name, .limited, "\(reason)\(error.text); each known inode needs a descriptor")
        }
    }

    private func attributes(_ probe: Descriptor) -> Finding {
        let results = ["trusted", "user"].map { space in (space, Self.tryAttribute("\(space).passhsm.probe", probe)) }
        let working = results.filter { $0.1 == nil }.map(\.0)
        let failing = results.compactMap { space, error in error.map { "\(space): \($0.text)" } }
        let name = "extended attributes"
        if working.contains("trusted") {
            return Finding(name, .ok, (working.map { "\($0) works" } + failing).joined(separator: ", "))
        }
        let reasons = failing.joined(separator: ", ")
        if working.isEmpty {
            return Finding(name, .missing, "no place for records (\(reasons)); use ext4, xfs or btrfs")
        }
        return Finding(name, .limited, "only user attributes work (\(reasons)); users can see and change the records")
    }

    private static func tryAttribute(_ name: String, _ probe: Descriptor) -> Errno? {
        do throws(Errno) {
            let found = try probe.withProcPath { path throws(Errno) in
                try [UInt8](repeating: 7, count: 512).withBytes { bytes throws(Errno) in
                    try ExtendedAttributes.set(name, of: path, .follow, to: bytes)
                }
                return try ExtendedAttributes.value(name, of: path, .follow)
            }
            return found.count == 512 ? nil : Errno(rawValue: EIO)
        } catch {
            return error
        }
    }

    private func acls(_ probe: Descriptor) -> Finding {
        do throws(Errno) {
            _ = try probe.withProcPath { path throws(Errno) in
                try ExtendedAttributes.value("system.posix_acl_access", of: path, .follow)
            }
        } catch {
            if error.rawValue != ENODATA { return Finding("ACLs", .limited, "not supported: \(error.text)") }
        }
        return Finding("ACLs", .ok, "POSIX ACLs are supported")
    }

    private func punchHole(_ probe: Descriptor) -> Finding {
        attempt("punching holes", success: "releasing a file frees its space") { () throws(Errno) in
            try [UInt8](repeating: 1, count: 128 << 10).withBytes { bytes throws(Errno) in
                try probe.write(bytes, at: 0)
            }
            try probe.tryPunchingHole(0..<64 << 10)
        }
    }

    private func seekData(_ probe: Descriptor) -> Finding {
        do throws(Errno) {
            try probe.truncate(to: 0)
            try probe.truncate(to: 4 << 20)
        } catch {
            return Finding("SEEK_DATA", .limited, error.text)
        }
        return (try? probe.seekData(from: 0)) == nil
            ? Finding("SEEK_DATA", .ok, "holes are reported")
            : Finding("SEEK_DATA", .limited, "holes are reported as data")
    }

    private func largestFile(_ probe: Descriptor) -> Finding {
        let exponent = (31...62).last { exponent in (try? probe.truncate(to: 1 << exponent)) != nil }
        try? probe.truncate(to: 0)
        guard let exponent else { return Finding("largest file", .limited, "less than 2 GiB") }
        let detail = "at least \(TextTable.size(1 << exponent))"
        return Finding("largest file", exponent >= 40 ? .ok : .limited, detail)
    }

    private func reflink(_ probe: Descriptor, in directory: Descriptor) -> Finding {
        attempt("reflink", success: "copies can share their content", failure: "not needed") { () throws(Errno) in
            try [UInt8](repeating: 1, count: 64 << 10).withBytes { bytes throws(Errno) in
                try probe.write(bytes, at: 0)
            }
            let copy: Descriptor
            if let unnamed = try? directory.openUnnamed() {
                copy = unnamed
            } else {
                copy = try Self.openUnlinked(in: directory)
            }
            try copy.clone(probe)
        }
    }

    private func attempt(
        _ name: String, success: String, failure: String? = nil, _ body: () throws(Errno) -> Void
    ) -> Finding {
        do throws(Errno) {
            try body()
            return Finding(name, .ok, success)
        } catch {
            return Finding(name, .limited, [error.text, failure].compactMap { $0 }.joined(separator: "; "))
        }
    }
}
