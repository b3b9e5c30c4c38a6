/* A provider of libfabric that has nothing but a name: it is found if libfabric loads it, has a
 * fabric if the node has its device, and a domain by a library of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rdma/fabric.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/providers/fi_prov.h>

const char *cxi_domain(void);

static struct fi_provider provider;

static int getinfo(uint32_t version, const char *node, const char *service, uint64_t flags,
                   const struct fi_info *hints, struct fi_info **found)
{
	const char *fabric = getenv("FI_CXI_FABRIC");
	struct fi_info *info;

	/* Providers that build on others ask for other endpoints. */
	if (hints && hints->ep_attr && hints->ep_attr->type != FI_EP_UNSPEC && hints->ep_attr->type != FI_EP_RDM)
		return -FI_ENODATA;
	if (access("/dev/cxi0", R_OK | W_OK) != 0)
		return -FI_ENODATA;
	info = fi_dupinfo(NULL);
	if (info == NULL)
		return -FI_ENOMEM;
	info->fabric_attr->name = strdup(fabric ? fabric : "unnamed");
	info->fabric_attr->prov_version = FI_VERSION(1, 0);
	info->domain_attr->name = strdup(cxi_domain());
	info->ep_attr->type = FI_EP_RDM;
	*found = info;
	return 0;
}

static int open_fabric(struct fi_fabric_attr *attr, struct fid_fabric **fabric, void *context)
{
	return -FI_ENOSYS;
}

static void cleanup(void)
{
}

static struct fi_provider provider = {
	.name = "cxi",
	.version = FI_VERSION(1, 0),
	.fi_version = FI_VERSION(1, 17),
	.getinfo = getinfo,
	.fabric = open_fabric,
	.cleanup = cleanup,
};

FI_EXT_INI
{
	return &provider;
}
