import Glibc
import HSMControl
import HSMFanotify
import HSMSystem

/// Findings that come from the kernel.
extension Doctor {
    func kernelFinding() -> Finding {
        guard let kernel else { return Finding("kernel", .limited, "\(release): an unknown form of version") }
        let detail = "Linux \(release)"
        if kernel >= KernelVersion(6, 9) { return Finding("kernel", .ok, detail) }
        return Finding("kernel", .limited, "\(detail): FUSE passthrough comes with 6.9")
    }

    func fuseDevice() -> Finding {
        let name = "/dev/fuse"
        do throws(Errno) {
            _ = try Descriptor.open("/dev/fuse", O_RDWR)
        } catch {
            let advice = error.rawValue == ENOENT ? "; load the module with `modprobe fuse`" : ""
            return Finding(name, .missing, "\(error.text)\(advice)")
        }
        if capabilities.mayAdministrate { return Finding(name, .ok, "can be opened") }
        let helpers = ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"]
        guard helpers.contains(where: { access($0, X_OK) == 0 }) else {
            return Finding(
                name, .missing, "can be opened, but mounting needs CAP_SYS_ADMIN or fusermount3; install fuse3")
        }
        return Finding(name, .ok, "can be opened; mounts go through fusermount3")
    }

    func preContent(_ lower: BytePath?) -> Finding {
        let name = "fanotify pre-content"
        let support = PreContentSupport(lower: lower, mayAdministrate: capabilities.mayAdministrate)
        if let obstacle = support.obstacle { return Finding(name, .missing, obstacle) }
        if lower == nil {
            return Finding(name, .ok, "the kernel has it; name a lower directory to try its file system")
        }
        if let reservation = support.reservation { return Finding(name, .limited, reservation) }
        return Finding(name, .ok, "works for the whole file system; `mount --frontend auto` chooses it")
    }

    func requestTimeout() -> Finding {
        func value(_ name: String) -> Int? { SmallFile.text("/proc/sys/fs/fuse/\(name)").flatMap { Int($0) } }
        return Self.requestTimeout(default: value("default_request_timeout"), maximum: value("max_request_timeout"))
    }

    func ring() -> Finding {
        let name = "FUSE over io_uring"
        return switch SmallFile.text("/sys/module/fuse/parameters/enable_uring") {
        case "Y": Finding(name, .ok, "the kernel has it, and it is enabled")
        case .some: Finding(name, .limited, "off (/sys/module/fuse/parameters/enable_uring is N); not needed")
        case nil: Finding(name, .missing, "needs Linux 6.14 or later; not needed")
        }
    }

    func privileges() -> [Finding] {
        let user = OwnProcess.user
        let limit = Capabilities.descriptorLimit()
        let descriptors = "\(limit.now) now, \(limit.max) at most"
        return [
            Finding("user", .ok, "\(user)"),
            capabilities.mayAdministrate
                ? Finding("CAP_SYS_ADMIN", .ok, "held")
                : Finding(
                    "CAP_SYS_ADMIN", .missing, "no passthrough, no trusted attributes, no fanotify"),
            capabilities.mayOpenHandles
                ? Finding("CAP_DAC_READ_SEARCH", .ok, "held; inodes are known by file handle")
                : Finding("CAP_DAC_READ_SEARCH", .missing, "each known inode needs a descriptor"),
            Finding(
                "RLIMIT_NOFILE", limit.max >= 4096 || capabilities.mayOpenHandles ? .ok : .limited, descriptors),
        ]
    }
}
