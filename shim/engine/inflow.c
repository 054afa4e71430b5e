/* Owns nothing. */
#include "engine/inflow.h"

#include "engine/transfer.h"

void inflow_open(struct inflow *inflow, struct fd_view *view, int64_t offset, size_t length,
                 enum flight_transport transport)
{
    inflow->view = *view;
    inflow->landing.mutation.map = NULL;
    view->file = NULL;
    view->offset = NULL;
    if (!inflow->view.file || (offset < 0 && offset != TRANSFER_FILE_OFFSET))
        return; /* the kernel will refuse it */
    if (length > (size_t)(INT64_MAX - (offset < 0 ? 0 : offset)))
        length = (size_t)(INT64_MAX - (offset < 0 ? 0 : offset));
    landing_open(
        &inflow->landing, &inflow->view,
        &(struct landing_plan){
            .offset = offset, .length = length, .append = landing_appends(&inflow->view, 0), .transport = transport});
}

bool inflow_open_stray(struct inflow *inflow, const struct fd_view *lost, int64_t offset, size_t length)
{
    struct fd_view now;
    if (fd_view_open(&now, lost->fd, false) != 0)
        return false;
    bool strays = now.file && now.file != lost->file;
    if (strays)
        inflow_open(inflow, &now, offset, length, TRANSPORT_BLOCKING);
    fd_view_close(&now);
    return strays;
}

void inflow_close(struct inflow *inflow, ssize_t result)
{
    if (inflow->landing.mutation.map && !fd_view_leads(&inflow->view))
        inflow->landing.fd = -1;
    /* A source that ends, or a pipe that holds, as many bytes as no device can write: not the length that was asked for. See issue_wrote_nothing. */
    landing_close(&inflow->landing, result == -EINVAL ? -EIO : result, 0);
    fd_view_close(&inflow->view);
}
